"""JSON in files: one value a line, one array, values one after another, or one object around a list."""

import codecs
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from titlegen.data.columns import is_article
from titlegen.data.files import open_bytes
from titlegen.data.lines import CHUNK_CHARS, DAMAGED, cut_off, numbered_lines, parse_line, raw_lines
from titlegen.data.records import MAX_RECORD_BYTES, TOO_LONG, Numbered, Record, Table, Unreadable
from titlegen.errors import DataError

# One object is held in memory as a whole.
_MAX_OBJECT_CHARS = 256 * 2**20
_MAX_DEPTH = 3
_SPACE = re.compile(r"[ \t\r\n]*")


def open_json(path: Path, codec: str, *, is_lines: bool) -> Table:
    """Recognise how a JSON file holds its records, by its first lines.

    Args:
        path: the file.
        codec: what it is encoded in.
        is_lines: whether its name promises one object a line.
    """
    form = "" if codec == "utf-8" else f", {codec.removesuffix('-sig').upper()}"
    filled = (line for _, line in raw_lines(path, codec) if line.strip())
    first, second = (line.strip() for line in [*itertools.islice(filled, 2), b"", b""][:2])
    filled.close()
    if first.startswith(b"["):
        return Table(path, f"JSON array{form}", "item", lambda _: _array_items(path, codec))
    whole = isinstance(parse_line(first), dict)
    if (second and whole) or second.startswith(b"{") or (not whole and is_lines and _is_complete(first)):
        return Table(path, f"JSON lines{form}", "line", lambda _: numbered_lines(path, codec))
    return Table(path, f"JSON object{form}", "item", lambda _: _values(path, codec))


def _is_complete(line: bytes) -> bool:
    """Return whether a line is more than the opening of an object that goes on below."""
    return not line.endswith((b"{", b"[", b",")) or len(line) > MAX_RECORD_BYTES


def _characters(path: Path, codec: str) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8-sig" if codec == "utf-8" else codec)().decode
    with open_bytes(path) as file:
        while chunk := file.read(CHUNK_CHARS):
            yield decode(chunk)
    yield decode(b"", final=True)


class _Scanner:
    """Takes one JSON value after another from a file that is read in pieces."""

    def __init__(self, path: Path, codec: str) -> None:
        self._path, self._codec = path, codec
        self._pieces = _characters(path, codec)
        self._text, self._place, self.line = "", 0, 1
        self._decoder = json.JSONDecoder()

    def next_mark(self) -> str:
        """Return the next character that is no white space, without taking it; empty at the end."""
        while True:
            self._skip(_SPACE.match(self._text, self._place).end())  # type: ignore[union-attr]
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def take_mark(self) -> None:
        self._skip(self._place + 1)

    def value(self, limit: int) -> object:
        """Take one value of at most so many characters."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except RecursionError as error:
                raise self.fail("nested too deeply") from error
            except ValueError as error:
                # It may only be cut here.
                if len(self._text) - self._place > limit:
                    raise self.fail(f"a value {TOO_LONG}, or {_reason(error)}") from error
                if not self._more(double=True):
                    raise self.fail(_reason(error)) from error
            else:
                self._skip(end)
                return value

    def fail(self, reason: str) -> DataError:
        return DataError(f"{self._path}, near line {self.line}: not JSON ({reason}); correct the file")

    def _skip(self, place: int) -> None:
        self.line += self._text.count("\n", self._place, place)
        self._place = place

    def _more(self, *, double: bool = False) -> bool:
        wanted = max(CHUNK_CHARS, len(self._text) - self._place if double else 0)
        pieces, size = [self._text[self._place :]], 0
        try:
            while size < wanted and (piece := next(self._pieces, "")):
                pieces.append(piece)
                size += len(piece)
        except UnicodeError as error:
            raise DataError(
                f"{self._path}, behind line {self.line}: not {self._codec.upper()} ({error}); save the file as UTF-8"
            ) from error
        except DAMAGED as error:
            raise cut_off(self._path, error) from error
        self._text, self._place = "".join(pieces), 0
        return size > 0


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _array_items(path: Path, codec: str) -> Iterator[Numbered]:
    scanner = _Scanner(path, codec)
    scanner.next_mark()
    scanner.take_mark()
    number = 0
    while (mark := scanner.next_mark()) != "]":
        if number and mark != ",":
            raise scanner.fail("an array that does not end" if not mark else f"{mark!r} between two items")
        if number:
            scanner.take_mark()
            if scanner.next_mark() == "]":
                break  # a comma behind the last item, as people write it
        number += 1
        yield number, _object(scanner.value(MAX_RECORD_BYTES))
    scanner.take_mark()
    if scanner.next_mark():
        raise scanner.fail("more than one array")


def _values(path: Path, codec: str) -> Iterator[Numbered]:
    """Yield objects that are written over several lines each, or the records of the one object there is."""
    scanner = _Scanner(path, codec)
    if not scanner.next_mark():
        return
    first = scanner.value(_MAX_OBJECT_CHARS)
    if scanner.next_mark():
        yield 1, _object(first)
        for number in itertools.count(2):
            if not scanner.next_mark():
                return
            yield number, _object(scanner.value(MAX_RECORD_BYTES))
    yield from enumerate(_unwrap(first, path), start=1)


def _object(value: object) -> Record | Unreadable:
    if isinstance(value, dict):
        return value
    return Unreadable(f"{type(value).__name__} instead of an object {{...}}")


def _unwrap(value: object, path: Path) -> list[Record | Unreadable]:
    """Return the records of an object: those in the one list it has, or itself as the only one.

    Raises:
        DataError: it has several such lists, or is a table by columns.
    """
    if not isinstance(value, dict):
        return [_object(value)]
    if is_article(value):
        return [value]
    lists = list(_lists_of_objects(value, _MAX_DEPTH))
    # An article is the longest text that there is: its record may hold lists of smaller things.
    inside = max((_longest_text(item) for _, items in lists for item in items), default=0)
    if _longest_text(value) >= inside or any("role" in item or "from" in item for _, items in lists for item in items):
        lists = []
    if len(lists) > 1:
        raise DataError(
            f"{path} is one object with several lists: {', '.join(name for name, _ in lists)}; keep the one that holds "
            "the articles"
        )
    if lists:
        return [_object(item) for item in lists[0][1]]
    members = list(value.values())
    if members and all(isinstance(item, dict) for item in members) and not _is_by_columns(members):
        return [{"id": name, **item} for name, item in value.items()]
    if members and all(isinstance(item, list | dict) for item in members) and _is_by_columns(members):
        raise DataError(f"{path} is a table by columns ({', '.join(value)}); write it with orient='records'")
    return [value]


def _longest_text(record: Mapping[str, object]) -> int:
    return max((len(text) for text in record.values() if isinstance(text, str)), default=0)


def _lists_of_objects(value: Mapping[str, object], depth: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    for name, item in value.items():
        if isinstance(item, list) and item and all(isinstance(element, dict) for element in item):
            yield name, item
        elif isinstance(item, dict) and depth:
            yield from _lists_of_objects(item, depth - 1)


def _is_by_columns(members: list[object]) -> bool:
    """Return whether the members of an object are columns: lists of one length, or objects by the number of the row."""
    columns = [member for member in members if isinstance(member, list)]
    if len(columns) == len(members):
        # Cells are no objects: the turns of the conversations in one record are.
        has_objects = any(isinstance(item, dict) for column in columns for item in column)
        return len(columns) > 1 and len({len(column) for column in columns}) == 1 and not has_objects
    return all(isinstance(member, dict) and set(member) == {*map(str, range(len(member)))} for member in members)
