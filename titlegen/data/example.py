"""The examples that the other stages read: articles with titles, from the JSONL files that ``prepare`` wrote."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titlegen.data.lines import numbered_lines, read_head
from titlegen.data.records import Unreadable, unreadable_row
from titlegen.encodings import detect_encoding
from titlegen.errors import DataError

SPLITS = ("train", "val", "test")
KEYS = ("id", "content", "title", "source", "date")


@dataclass(frozen=True, slots=True)
class Example:
    """One article: the model reads ``content`` and learns to write ``title``."""

    id: str
    content: str
    title: str
    source: str
    date: str | None
    """Day of publication, YYYY-MM-DD, when the source gave one."""


def load_split(directory: Path, split: str) -> list[Example]:
    """Return the examples of ``train``, ``val`` or ``test``, in file order.

    Raises:
        DataError: the file is missing, or a line is not one of its records; the message names file, line and reason.
    """
    path = directory / f"{split}.jsonl"
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `titlegen prepare` first")
    return [_example(record, path, number) for number, record in read_jsonl(path)]


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number, from 1, and Any of each line; blank lines are passed over.

    Raises:
        DataError: a line is not UTF-8, not JSON or not an Any.
    """
    for number, record in numbered_lines(path, detect_encoding(read_head(path), str(path))):
        if isinstance(record, Unreadable):
            raise unreadable_row(str(path), "line", number, record.reason)
        yield number, dict(record)


def _example(record: dict[str, Any], path: Path, number: int) -> Example:
    for key in KEYS:
        if key not in record:
            raise DataError(f"{path}, line {number}: key {key!r} is missing; run `titlegen prepare` again")
        value = record[key]
        if not isinstance(value, str) and not (key == "date" and value is None):
            raise DataError(
                f"{path}, line {number}: {key!r} is {type(value).__name__} instead of text; "
                "run `titlegen prepare` again"
            )
    return Example(**{key: record[key] for key in KEYS})
