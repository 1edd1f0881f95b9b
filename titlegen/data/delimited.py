"""Delimited tables: commas, tabs, semicolons or bars, as spreadsheets of all languages write them."""

import csv
import io
import itertools
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from titlegen.data.files import open_bytes
from titlegen.data.lines import read_head
from titlegen.data.records import (
    MAX_RECORD_BYTES,
    PADDING,
    TOO_LONG,
    Numbered,
    Record,
    Table,
    Unreadable,
    unreadable_row,
)
from titlegen.encodings import HEAD_BYTES
from titlegen.errors import DataError

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# Rows by which a delimiter is judged.
_JUDGED = 50


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a table looks like, by its first rows."""

    delimiter: str
    skips_spaces: bool
    """Spaces stand behind the delimiters, also before quotation marks."""
    has_hint: bool
    """The first line is Excel's ``sep=;``."""


def open_delimited(path: Path, codec: str) -> Table:
    """Recognise a table by its first rows.

    Raises:
        DataError: the file cannot be read, or has no rows.
    """
    head = read_head(path)
    # Incremental: the last character may be cut.
    text = io.TextIOWrapper(io.BytesIO(head), "utf-8-sig" if codec == "utf-8" else codec, "replace", "").read()
    shape = _find_shape(text, is_whole=len(head) < HEAD_BYTES, prefers_tabs=path.suffix.lower() == ".tsv")
    header = next(_rows(io.StringIO(text, newline=""), shape), (1, []))[1]
    if isinstance(header, Unreadable):
        raise unreadable_row(str(path), "line", 1, header.reason)
    names = _names(header)
    form = f"CSV, {_DELIMITERS.get(shape.delimiter, repr(shape.delimiter))}"
    form += "" if codec == "utf-8" else f", {codec.removesuffix('-sig').upper()}"
    return Table(path, form, "line", lambda _: _read(path, codec, shape, names), tuple(names))


def _find_shape(text: str, *, is_whole: bool, prefers_tabs: bool) -> _Shape:
    first = text.partition("\n")[0]
    if first.lower().startswith("sep=") and len(first.strip()) == len("sep=") + 1:
        return _Shape(first.strip()[-1], skips_spaces=False, has_hint=True)
    best, best_score = "\t" if prefers_tabs else ",", (0.0, 0)
    for delimiter in sorted(_DELIMITERS, key=lambda mark: mark != best):
        score = _score(text, _Shape(delimiter, f"{delimiter} " in first, has_hint=False), is_whole=is_whole)
        if score > best_score:
            best, best_score = delimiter, score
    # Spaces behind the delimiters stand before quotation marks, too, which would be taken for text.
    return _Shape(best, f"{best} " in first, has_hint=False)


def _score(text: str, shape: _Shape, *, is_whole: bool) -> tuple[float, int]:
    """Return the share of rows that have as many fields as the header, and how many these are."""
    rows = itertools.islice(_rows(io.StringIO(text, newline=""), shape), _JUDGED + 2)
    sizes = [0 if isinstance(row, Unreadable) else len(row) for _, row in rows]
    if not is_whole and len(sizes) > 2:  # noqa: PLR2004 - the last of several may be cut
        sizes.pop()
    if not sizes or sizes[0] < 2:  # noqa: PLR2004 - no delimiter in the header
        return 0.0, 0
    return sum(size == sizes[0] for size in sizes) / len(sizes), sizes[0]


def _rows(file: io.TextIOBase, shape: _Shape) -> Iterator[tuple[int, list[str] | Unreadable]]:
    """Yield the number of its first line and the fields of each row that is not blank, the header included."""
    # An article may be longer than the csv module's default of 128 KiB a field.
    csv.field_size_limit(MAX_RECORD_BYTES)
    reader = csv.reader(file, delimiter=shape.delimiter, skipinitialspace=shape.skips_spaces, strict=True)
    if shape.has_hint:
        next(reader, None)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "limit" in str(error):  # What follows would be read from the middle of a field.
                raise
            at_end = "end of data" in str(error)
            cause = "that opens here is never closed" if at_end else "inside a cell must be written twice"
            yield number, Unreadable(f"{error}: a quotation mark {cause}")
            continue
        if row is None:
            return
        # Spreadsheets write rows of empty cells below the table.
        if any(cell.strip(PADDING) for cell in row):
            yield number, row


def _names(header: list[str]) -> list[str]:
    names = [name.strip("\ufeff\u200b\u3000 \t\r\n") for name in header]
    while names and not names[-1]:
        names.pop()
    return names


def _read(path: Path, codec: str, shape: _Shape, names: list[str]) -> Iterator[Numbered]:
    # Bytes that are not UTF-8 come through as lone surrogates, so that the row that holds them can be named.
    errors = "surrogateescape" if codec.startswith("utf-8") else "strict"
    number = 0
    try:
        with (
            open_bytes(path) as raw,
            io.TextIOWrapper(raw, "utf-8-sig" if codec == "utf-8" else codec, errors, "") as file,
        ):
            rows = _rows(file, shape)
            next(rows, None)
            for number, row in rows:
                yield number, row if isinstance(row, Unreadable) else _record(row, names)
    except UnicodeError as error:
        raise DataError(
            f"{path}, behind line {number}: not {codec.upper()} ({error}); save the file as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path}, behind line {number}: a field {TOO_LONG}, or a quotation mark never closed; correct the file"
        ) from error
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read to its end: {error}; it may be cut off, copy it again") from error


def _record(row: list[str], names: list[str]) -> Record | Unreadable:
    if len(row) != len(names):
        if len(row) < len(names) or any(row[len(names) :]):
            return Unreadable(f"the row has {len(row)} fields, not {len(names)} as the header has")
        row = row[: len(names)]
    try:
        "".join(row).encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) - 0xDC00
        return Unreadable(f"not UTF-8 (byte 0x{byte:02x})")
    return dict(zip(names, map(_unwrapped, row), strict=True))


def _unwrapped(cell: str) -> str:
    """Return a cell without the ``="..."`` that keeps a spreadsheet from taking it for a number."""
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > len('=""') else cell
