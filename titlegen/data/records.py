"""Records of a file with their places, as the readers of all formats return them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from titlegen.data.columns import Columns
from titlegen.errors import DataError

# Longer than any record of an article: a longer one is a dump of something else.
MAX_RECORD_BYTES = 8 * 2**20
# Padding that old systems, and disks that lost power, leave behind the last line.
PADDING = "\0\x1a"
TOO_LONG = f"over {MAX_RECORD_BYTES // 2**20} MiB"

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place without a record, and the reason."""

    reason: str
    is_long: bool = False
    """The line is over the limit, which is no fault of the file."""


def unreadable_row(name: str, unit: str, number: int, reason: str) -> DataError:
    """Return the error for a place that holds no record."""
    return DataError(f"{name}, {unit} {number} cannot be read: {reason}; correct or remove the {unit}")


Numbered = tuple[int, Record | Unreadable]


@dataclass(frozen=True, slots=True)
class Table:
    """A file that holds records, recognised and not yet read."""

    path: Path
    form: str
    """How it is read, for the data card: "CSV, tabs, UTF-16"."""
    unit: str
    """What a number counts: line, row or item."""
    read: Callable[[tuple[str, ...] | None], Iterator[Numbered]]
    """Yield the numbered records; where the file stores columns apart, only the named ones."""
    names: tuple[str, ...] | None = None
    """The columns, where the file itself lists them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file or split that is ready to be read."""

    name: str
    form: str
    """How it is read."""
    unit: str
    """What its records are counted in."""
    origin: str
    """The source of articles that name none."""
    columns: Columns
    records: Callable[[], Iterator[Numbered]]


@dataclass(slots=True)
class Findings:
    """What the reader found out about a source, complete when all rows are read."""

    files: dict[str, str] = field(default_factory=dict)
    """How each file or split is read."""
    passed_over: tuple[str, ...] = ()
    """Files of a folder that are no tables."""
    flattened: Counter[str] = field(default_factory=Counter)
    """Cells that were no plain text, as "content, a list"."""
    instructions: Counter[str] = field(default_factory=Counter)
    """Instructions that were taken off articles."""
