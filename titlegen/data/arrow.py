"""Arrow tables, in Parquet files or Arrow's own; values that Python cannot hold are marked as unreadable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.data.records import Numbered, Table, Unreadable
from titlegen.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 512


def open_parquet(path: Path) -> Table:
    """Read the footer of a Parquet file.

    Raises:
        DataError: it has none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file, or is cut off: {short(error)}; copy it again") from error

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns) if columns else None)

    return Table(path, "Parquet", "row", lambda columns: _numbered(path, batches(columns)), names)


def open_arrow(path: Path) -> Table:
    """Read the schema of an Arrow file or stream, as Feather and `datasets` write them.

    Raises:
        DataError: it has none.
    """
    import pyarrow as pa
    import pyarrow.ipc

    def reader(file: pa.MemoryMappedFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        try:
            opened = pa.ipc.open_file(file)
        except pa.ArrowInvalid:
            file.seek(0)
            stream = pa.ipc.open_stream(file)
            return stream.schema, iter(stream)
        return opened.schema, (opened.get_batch(number) for number in range(opened.num_record_batches))

    try:
        with pa.memory_map(str(path)) as file:
            names = tuple(reader(file)[0].names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an Arrow file, or is cut off: {short(error)}; copy it again") from error

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(path)) as file:
            for batch in reader(file)[1]:
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    part = batch.slice(start, _BATCH_ROWS)
                    yield part.select(list(columns)) if columns else part

    return Table(path, "Arrow", "row", lambda columns: _numbered(path, batches(columns)), names)


def _numbered(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[Numbered]:
    import pyarrow as pa

    numbers = itertools.count(1)
    try:
        for batch in batches:
            for record in to_records(batch):
                yield next(numbers), record
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {short(error)}; it may be damaged, copy it again") from error


def to_records(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, object] | Unreadable]:
    """Yield the rows of a record batch or table; one that Python cannot hold names its column."""
    names = batch.schema.names
    for values in zip(*(_values(column) for column in batch.columns), strict=True):
        record = dict(zip(names, values, strict=True))
        broken = next((name for name, value in record.items() if isinstance(value, Unreadable)), None)
        if broken is None:
            yield record
        else:
            yield Unreadable(f"column {broken!r} {record[broken].reason}")


def _values(column: pa.Array | pa.ChunkedArray) -> list[object]:
    """Return the Python values of a column, ``Unreadable`` where there is none."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime has microseconds.
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError, TypeError, pa.ArrowException):
        values = [_value(scalar) for scalar in column]
    if pa.types.is_decimal(kind):
        values = [_number(value) if isinstance(value, Decimal) else value for value in values]
    return values


def _value(scalar: pa.Scalar) -> object:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"is not UTF-8 (byte 0x{error.object[error.start]:02x})")
    except (ValueError, OverflowError, TypeError, pa.ArrowException) as error:
        # A timestamp beyond Python's years is text, and gives no day.
        if pa.types.is_temporal(scalar.type):
            return str(getattr(scalar, "value", ""))
        return Unreadable(f"cannot be read ({short(error)})")


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def short(error: Exception) -> str:
    """Return an error of a library in one bounded line."""
    return " ".join(str(error).split())[:200]
