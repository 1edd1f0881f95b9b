"""Training on several cards: a process on each, started and watched by torchrun, and one line for a failure."""

import contextlib
import logging
import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from titlegen import cards
from titlegen.environment import describe_exit, python_command
from titlegen.errors import TrainError
from titlegen.results import Trained
from titlegen.train.devices import Devices
from titlegen.train.work import RESULT, Failure, Work, failure_of

_RANKS = "ranks"
_LOOPBACK = "127.0.0.1"
_AGAIN = "run the same command again to go on from the last checkpoint"
# Messages of a process that lost another one, or waited for it in vain: not the cause.
_TIMED_OUT = ("timed out", "timeout")
_CONSEQUENCES = ("connection closed by peer", "connection reset", "broken pipe", "nccl", *_TIMED_OUT)


def train_on(devices: Devices, work: Work, command: Sequence[str] = ()) -> Trained:
    """Train on several cards as :func:`titlegen.train.fit` does on one.

    The processes of other hosts join through torchrun's own variables, such as PET_NNODES and PET_RDZV_ENDPOINT.

    Args:
        devices: the cards of this host.
        work: what is to be done.
        command: what runs in each process, before the path of a file with ``work``; our own worker where it is empty.

    Returns:
        What ``fit`` returns.

    Raises:
        TrainError: a process failed; the message names its rank and the cause.
    """
    folder = work.work / _RANKS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = folder / "work.json"
    given.write_text(work.model_dump_json(), encoding="utf-8")
    cards.prepare_ranks(devices.count, one_host=devices.hosts == "1")
    _run(devices, [*(command or python_command("titlegen.train.worker")), str(given)], folder)
    results = Trained.model_validate_json((folder / RESULT).read_bytes())
    shutil.rmtree(work.work)
    return results


def _run(devices: Devices, command: Sequence[str], folder: Path) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, get_args_parser

    options = [f"--nproc-per-node={devices.count}", f"--log-dir={folder}", "--max-restarts=0", "--monitor-interval=0.1"]
    if devices.hosts == "1":
        options += ["--rdzv-backend=c10d", f"--rdzv-endpoint={_LOOPBACK}:0", f"--local-addr={_LOOPBACK}"]
        options.append(f"--rdzv-id={uuid.uuid4()}")
    # Other options come from torchrun's variables: PET_ and the name of an option.
    given = get_args_parser().parse_args([*options, "--no-python", *command])
    with _signals_given_back() as handled, _quiet():
        given.signals_to_handle = ",".join(handled)
        try:
            config, program, arguments = config_from_args(given)
            elastic_launch(config, program)(*arguments)
        except SignalException as error:
            ended = error.sigval
        except ChildFailedError as error:
            raise TrainError(_describe(error.failures, devices, folder)) from error
        except RendezvousError as error:
            raise TrainError(
                f"the hosts do not find each other ({error}); look at PET_NNODES, PET_RDZV_ENDPOINT and the network, "
                "and start the same command on every host"
            ) from error
        else:
            return
    # As Ctrl-C, a closed terminal or SIGTERM does without torchrun.
    signal.raise_signal(ended)
    raise KeyboardInterrupt


def _describe(failures: Mapping[int, Any], devices: Devices, folder: Path) -> str:
    """Return one line about the rank that failed first and was not failed by another."""
    told = {rank: _read(failure_of(folder, rank)) for rank in failures}

    def is_consequence(rank: int) -> bool:
        failure = told[rank]
        if failure is None:
            # Signals of torchrun to the others, and of NCCL's watchdog to a process that waits in vain.
            return failures[rank].exitcode in {-signal.SIGTERM, -signal.SIGABRT}
        return not failure.known and any(mark in failure.text.lower() for mark in _CONSEQUENCES)

    rank = min(failures, key=lambda rank: (is_consequence(rank), told[rank] is not None, failures[rank].timestamp))
    waited = any(failure.exitcode == -signal.SIGABRT for failure in failures.values())
    waited |= any(mark in failure.text.lower() for failure in told.values() if failure for mark in _TIMED_OUT)
    failure, who = told[rank], f"rank {rank} of {devices.count}"
    if devices.hosts != "1":
        who = f"rank {rank}, process {failures[rank].local_rank} of this host,"
    if failure is not None and failure.known:
        return f"{who}: {failure.text}"
    if is_consequence(rank) and waited and (late := _latest(folder)):
        return f"{late}; {_AGAIN}"
    if is_consequence(rank) and devices.hosts != "1":
        return f"{who} lost the ranks of another host: what it says there is the cause; {_AGAIN} on every host"
    if failure is not None:
        return f"{who} failed: {failure.text}; its traceback is in {failure_of(folder, rank)}; {_AGAIN}"
    return f"{who} {describe_exit(failures[rank].exitcode)} while {_doing(folder, rank)}; {_AGAIN}"


def _latest(folder: Path) -> str:
    """Return which rank the others waited for, if one is behind."""
    notes = {}
    for path in folder.glob("rank*"):
        with contextlib.suppress(OSError, ValueError):
            number, doing = path.read_text(encoding="ascii").split()
            notes[path.name.removeprefix("rank")] = (int(number), doing == "exchanging")
    if len(set(notes.values())) <= 1:
        return ""
    rank = min(notes, key=lambda name: notes[name])
    passes, _ = notes[rank]
    return f"rank {rank} hangs: it has not finished pass {passes}, and the others have waited for it in vain"


def _doing(folder: Path, rank: int) -> str:
    try:
        number, doing = (folder / f"rank{rank}").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return "getting ready"
    return f"{doing} pass {number}" if doing == "computing" else f"{doing} the gradients of pass {number}"


def _read(path: Path) -> Failure | None:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _signals_given_back() -> Iterator[list[str]]:
    """Restore signal handlers, which torchrun replaces for good; an ignored signal (``nohup``) stays ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield [number.name for number, handler in before.items() if handler is not signal.SIG_IGN]
    finally:
        for number, handler in before.items():
            # Only the main thread may.
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out torchrun's own report of a failure, which takes thirty lines."""
    logger = logging.getLogger("torch.distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
