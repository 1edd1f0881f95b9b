"""How a date may be written, and what one value of a date column says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

ABSENT: Final = "absent"
UNKNOWN: Final = "not understood"
AMBIGUOUS: Final = "ambiguous"
YEAR_FIRST: Final = "year first"
MONTH_FIRST: Final = "month first"
DAY_FIRST: Final = "day first"
ROC: Final = "year of the Republic"
NAMED: Final = "month by name"
STAMP: Final = "time stamp"
SERIAL: Final = "serial day"
CONTRADICTED: Final = "another day's weekday"
FORMS = (ABSENT, UNKNOWN, AMBIGUOUS, YEAR_FIRST, MONTH_FIRST, DAY_FIRST, ROC, NAMED, STAMP, SERIAL, CONTRADICTED)
"""How a date is written; the first three give no day."""

UNDATED: Final = -1
"""In place of a day's number where there is none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one value says."""

    form: str
    """One of ``FORMS``."""
    day: date | None = None
    shape: str = ""
    """Where the numbers of a value stood that may be read in more than one order: last, short or named."""
    choices: Mapping[str, date] = field(default_factory=dict)
    """The days of a value with a shape, by the order in which its numbers are read."""

    @property
    def iso(self) -> str | None:
        """The day as YYYY-MM-DD."""
        return self.day.isoformat() if self.day else None


_NULLS = frozenset(
    name
    for names in (
        "none null nil nan nat n/a na #n/a <na> undefined unknown - -- --- — –– ? \\n",
        "無 无 無日期 未知 不詳 不明 暫無",
    )
    for name in names.split()
)

# What MySQL, .NET and Go write where there is no date.
_ZERO = re.compile(r"(?:0000|0001)[-/.]?0?[01][-/.]?0?[01](?:[T ].*)?|0{14}", re.ASCII)


def is_no_date(text: str) -> bool:
    """Return whether a text, without spaces around it, is what stands where there is no date."""
    return not text or text.lower() in _NULLS or _ZERO.fullmatch(text) is not None
