"""One of the processes that train together: ``python -m titlegen.train.worker FILE``, started by torchrun.

FILE holds a :class:`~titlegen.train.work.Work`. The first process of each host writes beside it what ``fit`` returned;
a process that fails writes why.
"""

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from titlegen import cards, environment
from titlegen.errors import TitlegenError, TrainError
from titlegen.train.ranks import end_with_parent, joined
from titlegen.train.work import RESULT, Failure, Work, failure_of
from titlegen.upstream import silence_harmless


def main(path: Path) -> NoReturn:
    """Train as one of several, and end this process."""
    end_with_parent()
    _keep_output(path.parent / f"output{cards.rank()}.log")
    # To torch each rank's card is then number 0, which is part of the key of compiled code: what one has compiled, all
    # find in the cache. Source: torch 2.11, FxGraphHashDetails in torch/_inductor/codecache.py.
    cards.show_card(cards.local_rank())
    environment.prepare()
    environment.prepare_threads()
    silence_harmless()
    code = 0
    try:
        _work(Work.model_validate_json(path.read_bytes()), path.parent)
    except Exception as error:  # noqa: BLE001 - whatever it is, the command is to say it
        known = isinstance(error, TitlegenError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        told = Failure(known=known, text=text, traceback=traceback.format_exc())
        failure_of(path.parent, cards.rank()).write_text(told.model_dump_json(indent=1), encoding="utf-8")
        code = 1
    # A full disk is not to keep a failed rank here.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Threads of a process group that lost a rank may wait for it for ever. And Python would take two seconds, for which
    # the command waits, to take apart what is loaded.
    os._exit(code)


def _keep_output(log: Path) -> None:
    """Redirect output to a log: standard output belongs to results, and progress is shown once."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(number, 1)
    if cards.local_rank():
        os.dup2(number, 2)
    os.close(number)


def _work(given: Work, folder: Path) -> None:
    from titlegen import data
    from titlegen.train import fit

    with joined(folder, given.timeout_s) as ranks:
        if len(set(keys := ranks.gather(given.key))) > 1:
            found = ", ".join(f"rank {rank}: {key[:16]}" for rank, key in enumerate(keys))
            raise TrainError(
                f"the hosts do not train the same ({found}); give them the same titlegen, base model, articles and "
                "settings"
            )
        train, val = (data.load_split(given.prepared, split) for split in ("train", "val"))
        results = fit(train, val, given.base, given.settings, given.work, given.directory, ranks=ranks)
        if ranks.leads:
            (folder / RESULT).write_text(json.dumps(results.as_json()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
