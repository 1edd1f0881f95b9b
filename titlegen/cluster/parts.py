"""The files of a run over many articles: one for each block, named by its place, and never partial."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from titlegen.errors import VerifyError
from titlegen.serve.lines import as_line

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {"parquet": ".parquet", "jsonl": ".jsonl"}


class Place(NamedTuple):
    """Where a block of articles stands in the source."""

    file: int
    """Which file, from 0, in the order of their names."""
    block: int
    """Which block of the file, from 0."""


def part_path(directory: Path, place: Place, form: str) -> Path:
    """Return the file of a block; in the order of their names, files hold the articles in the order of the source."""
    return directory / f"part-{place.file:06d}-{place.block:08d}{SUFFIXES[form]}"


def find_parts(directory: Path, form: str) -> dict[Place, Path]:
    """Return the files that are there, in the order of the source."""
    paths = sorted(directory.glob(f"part-*-*{SUFFIXES[form]}"))
    return {Place(*map(int, path.stem.split("-")[1:])): path for path in paths}


def whole_parts(directory: Path, form: str) -> dict[Place, int]:
    """Return how many records each file has; one that cannot be read, as a broken disk leaves it, is removed."""
    whole = {}
    for place, path in find_parts(directory, form).items():
        try:
            whole[place] = count_rows(path)
        except VerifyError:
            path.unlink()
    return whole


def count_rows(path: Path) -> int:
    """Return how many records a file has.

    Raises:
        VerifyError: it is none of ours, or was cut off.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == SUFFIXES["parquet"]:
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as file:
            lines = list(file)
    except (OSError, pa.ArrowException) as error:
        raise VerifyError(f"{path} cannot be read ({error}); remove it, and run the command again") from error
    if lines and not lines[-1].endswith(b"\n"):
        raise VerifyError(f"{path} was cut off; remove it, and run the command again")
    return len(lines)


def write_part(path: Path, records: Sequence[dict[str, object]]) -> None:
    """Write the records of a block beside its place, then put them there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix == SUFFIXES["parquet"]:
            import pyarrow.parquet as pq

            pq.write_table(_table(records), beside, compression="zstd")
        else:
            # As JSON escapes half a surrogate pair.
            beside.write_text("".join(map(as_line, records)), encoding="utf-8", errors="backslashreplace")
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_part(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, object]]:
    """Yield the records of a block: all of their columns, or these."""
    if path.suffix == SUFFIXES["parquet"]:
        import pyarrow.parquet as pq

        yield from pq.read_table(path, columns=list(columns) if columns else None).to_pylist()
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            yield record if columns is None else {name: record.get(name) for name in columns}


def join_parts(parts: Iterable[Path], target: Path) -> None:
    """Write the records of all blocks into one file, block after block."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.suffix == SUFFIXES["parquet"]:
            import pyarrow.parquet as pq

            with pq.ParquetWriter(beside, _schema(), compression="zstd") as writer:
                for part in parts:
                    writer.write_table(pq.read_table(part, schema=_schema()))
        else:
            with beside.open("wb") as output:
                for part in parts:
                    output.write(part.read_bytes())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _table(records: Sequence[dict[str, object]]) -> pa.Table:
    import pyarrow as pa

    # A column has one type, and ids may be numbers in one row and text in the next. Half a surrogate pair has no UTF-8
    # form.
    rows = [_plain(record | {"id": str(record["id"])}) for record in records]
    return pa.Table.from_pylist(rows, schema=_schema())


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _schema() -> pa.Schema:
    """Return the columns of a file, the fields of :func:`titlegen.serve.lines.as_record`."""
    import pyarrow as pa

    span = [("text", pa.string()), ("start", pa.int32()), ("end", pa.int32())]
    said = [("message", pa.string()), ("message_zh", pa.string()), ("evidence", pa.struct(span))]
    return pa.schema(
        [
            ("id", pa.string()),
            ("sha256", pa.string()),
            ("file", pa.string()),
            ("title", pa.string()),
            ("done_reason", pa.string()),
            ("trimmed", pa.bool_()),
            ("warnings", pa.list_(pa.struct([("kind", pa.string()), *span, *said]))),
            ("titles", pa.list_(pa.string())),
            ("error", pa.string()),
        ]
    )
