"""The directory of a run over many articles: its owner, its finished blocks, and the check that nothing is missing."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titlegen.cluster.parts import Place, count_rows, find_parts, join_parts, read_part, whole_parts
from titlegen.errors import DataError, VerifyError
from titlegen.files import digest_file, writable
from titlegen.manifest import MANIFEST, FileRecord, Manifest, find_manifest, stage_key, write_manifest
from titlegen.results import Result, read_result

STAGE = "generate"
_SHOWN = 3


class RunCounts(Result):
    """The articles of a finished run: all, those without a title and with a warning, and the ids that repeat."""

    lines: int
    failed: int
    warned: int
    repeated_ids: int
    repeated_id: str | None
    """One of them."""


@dataclass(frozen=True)
class Opened:
    """A run's directory, ready to be written to."""

    key: str
    done: dict[Place, int]
    """The blocks that an earlier run finished, with their articles."""
    counts: RunCounts | None = None
    """Of an earlier run that finished all of them."""


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold a directory: two runs at once would do each block twice.

    Raises:
        DataError: another run of this machine holds it.
        TitlegenError: it cannot be made.
    """
    with writable(directory, "--out"):
        directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DataError(f"another run writes to {directory}; wait for it, or choose another folder") from error
    except OSError:
        # Some network file systems have no locks.
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)


def open_directory(directory: Path, settings: Mapping[str, object], inputs: Mapping[str, str], form: str) -> Opened:
    """Prepare a directory for a run, or find the blocks that an earlier one has finished in it.

    Args:
        directory: of the output.
        settings: what the output depends on.
        inputs: digests of what it is made of.
        form: what blocks are written as.

    Raises:
        DataError: it holds something else, or the titles of another model, other articles or other settings.
        TitlegenError: it cannot be written.
    """
    key = stage_key(STAGE, settings, inputs)
    earlier = find_manifest(directory)
    if earlier is None:
        there = sorted(path.name for path in directory.iterdir())
        if there:
            shown = ", ".join(there[:_SHOWN])
            raise DataError(
                f"{directory} is not empty ({shown}), and holds no run of `titlegen generate --engine ray`; choose an "
                "empty folder for the titles"
            )
        write_manifest(directory, STAGE, settings, inputs, {"finished": False}, files={})
        return Opened(key, {})
    if earlier.key != key:
        raise DataError(
            f"{directory} holds the titles of another run ({_difference(earlier, settings, inputs)}); choose another "
            "folder, or remove it"
        )
    for left in directory.glob(".part-*.tmp"):
        left.unlink()
    done = whole_parts(directory, form)
    names = {path.name for path in find_parts(directory, form).values()}
    is_finished = earlier.results.get("finished") and names == {n for n in earlier.files if n.startswith("part-")}
    return Opened(key, done, read_result(RunCounts, earlier) if is_finished else None)


def close_directory(
    directory: Path, settings: Mapping[str, object], inputs: Mapping[str, str], counts: RunCounts
) -> None:
    """Record that everything is done, with the digest of each file."""
    files = {
        path.name: FileRecord(size=path.stat().st_size, sha256=digest_file(path))
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    write_manifest(directory, STAGE, settings, inputs, counts.as_json() | {"finished": True}, files=files)


def check_complete(directory: Path, form: str, rows: Mapping[int, int], block_rows: int) -> RunCounts:
    """Count the records of the files, and check that no article is missing or there twice; 8 bytes an article.

    Args:
        directory: of the output.
        form: what blocks are written as.
        rows: of each file of the source.
        block_rows: articles of a block.

    Raises:
        VerifyError: a block is missing, is one too many, or has another number of articles.
    """
    import numpy as np

    expected = {
        Place(file, block): min(block_rows, total - block * block_rows)
        for file, total in rows.items()
        for block in range(-(-total // block_rows))
    }
    parts = find_parts(directory, form)
    wrong = [f"block {place.block} of file {place.file}" for place in expected.keys() ^ parts.keys()]
    found = [(parts[place], total) for place, total in expected.items() if place in parts]
    wrong += [path.name for path, total in found if count_rows(path) != total]
    if wrong:
        raise VerifyError(
            f"{directory} does not hold each article once: {', '.join(wrong[:_SHOWN])} is missing or wrong; run the "
            "command again"
        )
    failed = warned = 0
    digests = [np.zeros(0, np.int64)]
    for path in parts.values():
        records = list(read_part(path, ("id", "error", "warnings")))
        failed += sum(record["error"] is not None for record in records)
        warned += sum(bool(record["warnings"]) for record in records)
        digests.append(np.array([hash(str(record["id"])) for record in records], np.int64))
    repeated_ids, repeated_id = _repeated(np.concatenate(digests), parts)
    return RunCounts(
        lines=sum(rows.values()), failed=failed, warned=warned, repeated_ids=repeated_ids, repeated_id=repeated_id
    )


def join(directory: Path, form: str) -> Path:
    """Write all blocks into one file, in the order of the articles."""
    parts = find_parts(directory, form)
    suffix = next(iter(parts.values())).suffix
    target = directory / f"titles{suffix}"
    with writable(target, "--out"):
        join_parts(parts.values(), target)
    return target


def _repeated(digests: Any, parts: Mapping[Place, Path]) -> tuple[int, str | None]:
    import numpy as np

    values, counts = np.unique(digests, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    if not repeated:
        return 0, None
    ids = (str(record["id"]) for path in parts.values() for record in read_part(path, ("id",)))
    return len(repeated), next(one for one in ids if hash(one) in repeated)


def _difference(earlier: Manifest, settings: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    names = [name for name in inputs if earlier.inputs.get(name) != inputs[name]]
    then = earlier.settings
    names += [f"{name} = {then.get(name)!r}" for name in settings if then.get(name) != settings[name]]
    return f"other {', '.join(names[:_SHOWN])}" if names else "of another release of titlegen"
