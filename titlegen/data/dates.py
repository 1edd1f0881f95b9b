"""The day of publication from any value of a date column; nothing here raises.

The day is Taiwan's: a moment with a time zone belongs to the day that the calendar in Taipei shows then, and one
without is taken as it is written. What has two readings is not guessed here: ``date_order`` judges whole columns.

No library: dateutil and dateparser fill what is missing with today's date and guess the order of day and month one
value at a time, neither knows the Republic's years, and ``email.utils`` takes Taiwan's CST for Chicago's.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from numbers import Real

from titlegen.data.date_reading import (
    ABSENT,
    AMBIGUOUS,
    CONTRADICTED,
    DAY_FIRST,
    MONTH_FIRST,
    NAMED,
    ROC,
    STAMP,
    UNKNOWN,
    YEAR_FIRST,
    Reading,
    is_no_date,
)
from titlegen.data.date_stamps import count_from_epoch
from titlegen.data.date_text import (
    MIDNIGHT,
    MONTHS,
    Clock,
    changes_date,
    day_in_taiwan,
    fold_date_text,
    is_lunar,
    time_of_day,
    without_later_dates,
)
from titlegen.data.date_wraps import held_in_text, unwrap_date_text, unwrap_struct
from titlegen.data.date_zones import TAIWAN

_YEARS = range(1800, 2101)
_ROC_YEARS = 1911
# Two digits are the Republic's only from 1949 on: nobody dates an article of today by its first years.
_SHORT_ROC = range(38, 100)
_SHORT_DIGITS, _LONG_DIGITS, _MOST_ROC = 2, 4, 200
# POSIX: two digits from 69 on are of the last century.
_PIVOT = 69
_MAX_CHARS = 200
# Ten digits from here on (2030) are YYYYMMDDHH where they can be.
_FIRST_HOUR_STAMP = 1_900_000_000
_ABSENT, _UNKNOWN = Reading(ABSENT), Reading(UNKNOWN)
_FAILURES = (ValueError, OverflowError, OSError, ArithmeticError, TypeError, AttributeError, RecursionError)


def read_date(value: object) -> Reading:
    """Return how a value of any type is read as a day.

    Understood are ISO 8601 with week and ordinal dates, numbers in any order, Chinese dates and years of the Republic
    in digits and words, English months, RFC 822, time stamps and serial days: the tests list hundreds.
    """
    try:
        return _read(value)
    except _FAILURES:
        return _UNKNOWN


def _read(value: object) -> Reading:
    if isinstance(value, str):
        return _read_text(value) if len(value) <= _MAX_CHARS else _UNKNOWN
    if value is None:
        return _ABSENT
    if isinstance(value, bool) or not isinstance(value, date | Real | Decimal):
        return _read_wrapped(value)
    if value != value:  # noqa: PLR0124 - NaN and NaT
        return _ABSENT
    if isinstance(value, date):
        return _on(YEAR_FIRST, _day(value) if isinstance(value, datetime) else value)
    return _read_number(Decimal(str(value)))


def _read_wrapped(value: object) -> Reading:
    if isinstance(value, bytes):
        return _read(value.decode())
    if isinstance(value, Mapping):
        inner = unwrap_struct(value)
        return (_UNKNOWN if value else _ABSENT) if inner is None else _read(inner)
    if isinstance(value, list | tuple):
        return _read(value[0]) if len(value) == 1 else _on(YEAR_FIRST, date(*value[:3]))
    return _read_text(str(value)) if hasattr(value, "dtype") else _UNKNOWN


def _day(moment: datetime) -> date:
    return (moment if moment.tzinfo is None else moment.astimezone(TAIWAN)).date()


def _on(form: str, written: date | None, clock: Clock = MIDNIGHT, weekday: int | None = None) -> Reading:
    """Return the reading of a day as it is written, at a time of the day somewhere."""
    if written is None or written.year not in _YEARS:
        return _UNKNOWN
    day = day_in_taiwan(written, clock)
    return Reading(CONTRADICTED if _contradicts(weekday, written, day) else form, day)


def _contradicts(weekday: int | None, *days: date) -> bool:
    """Return whether a weekday is that of neither the day as it is written nor Taiwan's."""
    return weekday is not None and weekday not in {day.weekday() for day in days}


def _date(year: int, month: str, day: str) -> date | None:
    try:
        return date(year, int(month), int(day))
    except (ValueError, OverflowError):
        return None


_CLOCK_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d(?:\d{3})?)?)?)?")
_ROC_STAMP = re.compile(r"([01]\d\d)(\d\d)(\d\d)(?:(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d)?)?)?")
_YEAR_LAST_DIGITS = re.compile(r"(\d{1,2})(\d\d)((?:19|20)\d\d)|(\d\d)(\d\d)(\d\d)")
_HOUR_DIGITS = 10


def _read_number(value: Decimal, digits: str = "") -> Reading:
    """Read a number; ``digits`` are those that a text has before the point, with the zeros in front."""
    if not value.is_finite() or value <= 0:
        return _UNKNOWN if value else _ABSENT
    digits = digits or str(int(value))
    stamp = _CLOCK_STAMP.fullmatch(digits)
    if stamp and (len(digits) != _HOUR_DIGITS or value >= _FIRST_HOUR_STAMP):
        reading = _on(YEAR_FIRST, _date(int(stamp[1]), stamp[2], stamp[3]))
        if reading.day:
            return reading
    if (match := _ROC_STAMP.fullmatch(digits)) and (day := _date(int(match[1]) + _ROC_YEARS, match[2], match[3])):
        # 1130501103000 is also so many milliseconds, in 2005; the column tells.
        other = count_from_epoch(value).day
        if other is None or digits.startswith("0"):
            return Reading(ROC, day)
        return Reading(AMBIGUOUS, None, "stamp", {ROC: day, STAMP: other})
    if match := _YEAR_LAST_DIGITS.fullmatch(digits):
        return _choose(*filter(None, match.groups()))
    return count_from_epoch(value)


_NUMBER = re.compile(r"(\d+)(?:\.\d+)?|/?Date\((\d+)(?:[+-]\d{4})?\)/?", re.ASCII)
_WEEK_ALONE = re.compile(r"\d{4}-?W\d\d", re.ASCII)
_ORDINAL = re.compile(r"(\d{4})-(\d{3})(?=$|[T ])", re.ASCII)
_ERA = r"(?:(?P<roc>(?:中華)?民國|民|R\.?O\.?C\.?) ?(?P<before>前)?|西元|公元|公曆|西曆|A\.?D\.?|C\.?E\.?)? ?"
_YEAR_MONTH_DAY = re.compile(
    rf"(?<!\d){_ERA}(?:(?P<year>\d{{1,4}}) ?(?P<mark>[-/._, ]|年) ?(?P<month>\d{{1,2}}) ?(?P<second>[-/._, ]|月份?) ?"
    r"(?P<day>\d{1,2})[日號]?|(?P<digits>\d{7,8}|(?<=[國民Cc.前] )\d{6}|(?<=[國民Cc.前])\d{6}))(?!\d)",
    re.ASCII | re.IGNORECASE,
)
_HAN_MONTH_DAY_YEAR = re.compile(r"(\d{1,2})月 ?(\d{1,2})[日號]?[, ]*(\d{4})年?(?!\d)", re.ASCII)
_THREE = re.compile(r"(?<!\d)(?<!\d[-/.])(\d{1,2}) ?([-/.]) ?(\d{1,2}) ?\2 ?(\d{4}|\d{1,2})(?!\d)", re.ASCII)
_FURTHER_DAY = re.compile(r" ?[-~至到/.] ?\d{1,2}(?![\d:時點])", re.ASCII)


@lru_cache(maxsize=8192)
def _read_text(text: str) -> Reading:
    plain = unwrap_date_text(text.strip())
    if held := held_in_text(plain):
        return _read(held)
    if is_no_date(plain):
        return _ABSENT
    if plain[:4].isdigit() and not (plain.isdigit() or _WEEK_ALONE.fullmatch(plain)):
        with suppress(ValueError, OverflowError):
            if (day := _day(datetime.fromisoformat(plain))).year in _YEARS:
                return Reading(YEAR_FIRST, day)
    folded, weekday = fold_date_text(plain)
    if match := _NUMBER.fullmatch(folded):
        digits = match[1] or match[2]
        reading = _read_number(Decimal(folded if match[1] else digits), digits)
        has_other = reading.day is not None and _contradicts(weekday, reading.day)
        return replace(reading, form=CONTRADICTED) if has_other else reading
    return _read_folded(without_later_dates(folded), weekday)


def _read_folded(text: str, weekday: int | None) -> Reading:
    if match := _ORDINAL.match(text):
        day = date(int(match[1]), 1, 1) + timedelta(days=int(match[2]) - 1)
        return _on(YEAR_FIRST, day, weekday=weekday) if day.year == int(match[1]) else _UNKNOWN
    if is_lunar(text):
        return _UNKNOWN
    return _read_named(text, weekday) or _read_numbers(text, weekday)


def _read_numbers(text: str, weekday: int | None) -> Reading:
    """Read a date that is all numbers, with what stands around it."""
    short = _THREE.search(text)
    match = _YEAR_MONTH_DAY.search(text)
    if short and not (match and match["roc"]):
        match = short
    elif han := _HAN_MONTH_DAY_YEAR.search(text):
        match = han
    if match is None:
        return _UNKNOWN
    # A space that the pattern took tells a word from a letter of the number.
    head, tail = text[: match.start()] + " " * match[0].startswith(" "), text[match.end() :]
    clock, rest = time_of_day(tail if not head else f"{head} {tail}")
    if changes_date(time_of_day(head)[1]) or _FURTHER_DAY.match(tail) or _YEAR_MONTH_DAY.search(rest):
        return _UNKNOWN
    if match is short:
        return _choose(short[1], short[3], short[4], clock=clock, weekday=weekday)
    if match.re is _HAN_MONTH_DAY_YEAR:
        return _on(YEAR_FIRST, _date(int(match[3]), match[1], match[2]), clock, weekday)
    return _read_year_first(match, clock, weekday)


def _read_year_first(match: re.Match[str], clock: Clock, weekday: int | None) -> Reading:
    year, month, day = match["year"], match["month"], match["day"]
    if digits := match["digits"]:
        year, month, day = digits[:-4], digits[-4:-2], digits[-2:]
    number, is_short = int(year), len(year) <= _SHORT_DIGITS
    # 5/1 10:30 has no year.
    if (is_short and match["mark"] not in {None, "年", match["second"]}) or not number:
        return _UNKNOWN
    # 0113/05/01 has a form's four boxes for a year of the Republic; 99年 is one in Taiwan, 24年 is not.
    boxes = range(_SHORT_ROC.start if len(year) == _LONG_DIGITS else 1, _MOST_ROC)
    if match["before"]:
        return _on(ROC, _date(_ROC_YEARS + 1 - number, month, day), clock, weekday)
    if match["roc"] or (number in boxes and not is_short) or (match["mark"] == "年" and number in _SHORT_ROC):
        return _on(ROC, _date(number + _ROC_YEARS, month, day), clock, weekday)
    return _on(YEAR_FIRST, _date(_century(number) if is_short else number, month, day), clock, weekday)


_WORD = re.compile(r"[A-Za-z]+")
_CONNECTING = frozenset(("of", "at", "on", "the", "st", "nd", "rd", "th", "t"))


def _read_named(text: str, weekday: int | None) -> Reading | None:
    """Read a date whose month is an English word; None when it has none."""
    months = [word for word in _WORD.findall(text) if word.lower() in MONTHS]
    if len(months) != 1:
        return None
    clock, rest = time_of_day(re.sub(r"\([^()]*\)", " ", text))
    words = {word.lower() for word in _WORD.findall(rest)} - _CONNECTING - {months[0].lower()}
    before, _, after = rest.partition(months[0])
    numbers = [*re.findall(r"\d+", before), *re.findall(r"\d+", after)]
    if words or len(numbers) != 2:  # noqa: PLR2004 - a day and a year
        return _UNKNOWN
    month = MONTHS[months[0].lower()]
    years = [number for number in numbers if len(number) == 4]  # noqa: PLR2004
    if len(years) == 1:
        day = numbers[1 - numbers.index(years[0])]
        return _on(NAMED, _date(int(years[0]), month, day), clock, weekday)
    if years or not re.search(r"\d", before):
        return _UNKNOWN
    return _choose(numbers[0], month, numbers[1], clock=clock, weekday=weekday, named=True)


def _century(year: int) -> int:
    return year + (1900 if year >= _PIVOT else 2000)


def _choose(
    first: str,
    second: str,
    third: str,
    *,
    clock: Clock = MIDNIGHT,
    weekday: int | None = None,
    named: bool = False,
) -> Reading:
    """Return the reading of three numbers whose order the value alone may not tell."""
    if len(third) > _SHORT_DIGITS:
        shape, year = "last", int(third)
        orders = {MONTH_FIRST: (year, first, second), DAY_FIRST: (year, second, first)}
    else:
        shape, start, end = "named" if named else "short", int(first), _century(int(third))
        orders = {DAY_FIRST: (end, second, first), YEAR_FIRST: (_century(start), second, third)}
        if not named:
            orders[MONTH_FIRST] = (end, first, second)
            if start in _SHORT_ROC:
                orders[ROC] = (start + _ROC_YEARS, second, third)
    written = {order: day for order, numbers in orders.items() if (day := _date(*numbers)) and day.year in _YEARS}
    choices = {order: day_in_taiwan(day, clock) for order, day in written.items()}
    said = {order: day for order, day in choices.items() if not _contradicts(weekday, written[order], day)}
    if not choices:
        return _UNKNOWN
    likely = said or choices
    if len(set(likely.values())) > 1:
        return Reading(AMBIGUOUS, None, shape, likely)
    order, day = next(iter(likely.items()))
    return Reading(order if said else CONTRADICTED, day, shape, likely)
