"""Delimited tables: commas, tabs, semicolons or bars, as spreadsheets of all languages write them."""

import csv
import io
import itertools
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from titlegen.encodings import HEAD_BYTES, lenient_errors
from titlegen.errors import DataError

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# Rows by which a delimiter is judged.
_JUDGED = 50
# Marks around every cell that are no quotation marks to a CSV reader; names have them in other pairs, too.
_WRAPPED = re.compile(r"""(?:“(.*)”|‘(.*)’|`(.*)`|\\"(.*)\\"|"(.*)"|'(.*)')""", re.DOTALL)
_QUOTED_BY_ONE = re.compile(r"\s*'[^',;|\t]+'\s*[,;|\t]\s*'")


@dataclass(frozen=True, slots=True)
class _Shape:
    """The format of a table, recognised by its first rows."""

    delimiter: str
    skips_spaces: bool
    """Spaces stand behind the delimiters, also before quotation marks."""
    has_hint: bool = False
    """The first line is Excel's ``sep=;``."""
    quote: str = '"'
    is_padded: bool = False
    """Spaces stand behind closing quotation marks, which a CSV reader would not take for closing."""
    is_nested: bool = False
    """Each line is one quoted cell that holds the row: a table that was saved as a column of another."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of the reader."""
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quote,
            "skipinitialspace": self.skips_spaces,
            "strict": True,
        }


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
    is_wrapped = all(_WRAPPED.fullmatch(name) for name in names)
    names = [_without_wrap(name) for name in names] if is_wrapped else names
    form = f"CSV, {_DELIMITERS.get(shape.delimiter, repr(shape.delimiter))}"
    form += "" if codec == "utf-8" else f", {codec.removesuffix('-sig').upper()}"
    return Table(path, form, "line", lambda _: _read(path, codec, shape, names, is_wrapped=is_wrapped), tuple(names))


def _find_shape(text: str, *, is_whole: bool, prefers_tabs: bool) -> _Shape:
    first = text.partition("\n")[0]
    if first.lower().startswith("sep=") and len(first.strip()) == len("sep=") + 1:
        return _Shape(first.strip()[-1], skips_spaces=False, has_hint=True)
    best, best_score = _shape("\t" if prefers_tabs else ",", first), (0.0, 0)
    for delimiter in sorted(_DELIMITERS, key=lambda mark: mark != best.delimiter):
        for is_nested in (False, True):
            shape = replace(_shape(delimiter, first), is_nested=is_nested)
            score = _score(text, shape, is_whole=is_whole)
            if score > best_score:
                best, best_score = shape, score
    return best


def _shape(delimiter: str, first: str) -> _Shape:
    quote = "'" if _QUOTED_BY_ONE.match(first) else '"'
    # Spaces behind the delimiters stand before quotation marks, too, which would be taken for text.
    return _Shape(delimiter, f"{delimiter} " in first, quote=quote, is_padded=f"{quote} {delimiter}" in first)


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
    lines: Iterable[str] = file
    if shape.is_padded:
        padding = re.compile(f"{shape.quote} +(?={re.escape(shape.delimiter)})")
        lines = (padding.sub(shape.quote, line) for line in file)
    reader = csv.reader(lines, **shape.options)
    if shape.has_hint:
        next(reader, None)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
            if shape.is_nested and row is not None and len(row) == 1:
                row = next(csv.reader(io.StringIO(row[0], newline=""), **shape.options), [])
        except csv.Error as error:
            if "limit" in str(error):  # The rest would be read from the middle of a field.
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
    names = [" ".join(name.strip("\ufeff\u200b\u3000 \t\r\n").split()) for name in header]
    while names and not names[-1]:
        names.pop()
    return names


def _read(path: Path, codec: str, shape: _Shape, names: list[str], *, is_wrapped: bool) -> Iterator[Numbered]:
    number = 0
    try:
        with (
            open_bytes(path) as raw,
            io.TextIOWrapper(raw, "utf-8-sig" if codec == "utf-8" else codec, lenient_errors(codec), "") as file,
        ):
            rows = _rows(file, shape)
            next(rows, None)
            for number, row in rows:
                if isinstance(row, Unreadable):
                    yield number, row
                else:
                    yield number, _record([*map(_without_wrap, row)] if is_wrapped else row, names, codec)
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


def _record(row: list[str], names: list[str], codec: str) -> Record | Unreadable:
    if len(row) != len(names):
        if len(row) < len(names) or any(row[len(names) :]):
            return Unreadable(f"the row has {len(row)} fields, not {len(names)} as the header has")
        row = row[: len(names)]
    try:
        "".join(row).encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) - 0xDC00
        return Unreadable(f"not {codec.removesuffix('-sig').upper()} (byte 0x{byte:02x})")
    return dict(zip(names, map(_unwrapped, row), strict=True))


def _without_wrap(cell: str) -> str:
    match = _WRAPPED.fullmatch(cell.strip())
    return cell if match is None else next(filter(None, match.groups()), "")


def _unwrapped(cell: str) -> str:
    """Return a cell without the ``="..."`` or the ``'`` that keeps a spreadsheet from taking it for a number."""
    if cell.startswith("'") and cell.find("'", 1) < 0:
        return cell[1:]
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > len('=""') else cell
