"""The forms of a written date, and the reading of one value of a date column."""

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
"""Stands for the number of a day where there is none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The reading of one value."""

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


# What no text around a date, but somebody who has none, writes.
NO_VALUE: Final = frozenset(
    name
    for names in (
        "none null nil nan nat n/a n.a. na #n/a undefined unknown \\n tbd tba nodata no-data",
        "無 无 無日期 未知 不詳 不明 日期不詳 暫無 沒有 空 空白 無資料 未提供 未填 未註明 待定 待補",
    )
    for name in names.split()
)
# MySQL, .NET, Go and Excel where there is no date, and the first moment of 1970.
_ZERO = re.compile(
    r"(?:0000|0001)[-/.]?0?[01][-/.]?0?[01](?:[T ].*)?|0?[01][-/.]0?[01][-/.]000[01](?: .*)?|0{14}|"
    r"1899-12-30|1900-01-00|1970-01-01[T ](?:00:00:00(?:\.0+)?(?:Z|[+]00:?00)|08:00:00(?:\.0+)?[+]08:?00)",
    re.ASCII,
)
_AROUND = "()[]{}<>（）「」【】 \u200b\ufeff"


def is_no_date(text: str) -> bool:
    """Return whether a text, without spaces around it, is what stands where there is no date."""
    bare = text.strip(_AROUND).lower()
    # Hash marks alone are a date in a column too narrow for it.
    has_no_letter = bare.isprintable() and "#" not in bare and not any(map(str.isalnum, bare))
    return bare in NO_VALUE or has_no_letter or _ZERO.fullmatch(text) is not None
