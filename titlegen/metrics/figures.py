"""Numbers as they are written: figures, Han numerals, dates, times, shares, scores, telephone numbers, codes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from titlegen.metrics.figure_patterns import (
    ABOUT_AFTER,
    ABOUT_BEFORE,
    AT_LEAST_AFTER,
    AT_LEAST_BEFORE,
    AT_MOST_BEFORE,
    CALENDAR,
    CERTAIN_ROC,
    COUNTED,
    CURRENCY,
    DIGITS_ONLY,
    HAS_ARABIC,
    JOINT,
    LARGE_ALONE,
    LARGEST,
    LARGEST_PERCENT,
    LAST_ROC,
    LIKELY_ROC,
    LIKELY_WESTERN,
    NAMED_DIGITS,
    NEVER_ALONE,
    RANGE,
    RANKED,
    ROC_BEFORE,
    ROC_OFFSET,
    SCAN,
    SPAN_BEFORE,
    SUFFIX,
    UNIT_ONLY,
    VAGUE,
    VAGUE_BEFORE,
)
from titlegen.metrics.numerals import HAN_UNITS, LARGE_UNITS, parse_numeral

Reading = tuple[str, Decimal | str]
Bound = Literal["exact", "rounded", "at_least", "at_most", "about"]


@dataclass(frozen=True, slots=True)
class Number:
    """One number in a text: its words, its place, and everything that it may mean."""

    text: str
    start: int
    end: int
    readings: frozenset[Reading]
    bound: Bound = "exact"


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    value: Decimal
    unit: str
    more: str = ""


def scan_figures(plain: str) -> Iterator[Number]:
    """Yield the numbers in text of folded width; those with a meaning of their own, such as dates, come first."""
    tokens: list[_Token] = []
    for match in SCAN.finditer(plain):
        kind = str(match.lastgroup)
        if kind != "number":
            if readings := _READERS[kind](match):
                yield Number(match[0], match.start(), match.end(), frozenset(readings))
        # The 5 of 三成5 is part of the number before it.
        elif not (tokens and match.start() < tokens[-1].end) and (token := _token(plain, match)):
            tokens.append(token)
    for index, token in enumerate(tokens):
        yield _number(plain, token, tokens[index + 1] if index + 1 < len(tokens) else None)


def _read_phone(match: re.Match[str]) -> set[Reading]:
    return {("phone", re.sub(r"\D", "", match[0]))}


def _read_date(match: re.Match[str]) -> set[Reading]:
    year, month, day = (Decimal(part) for part in re.split(r"[/.-]", match[0]))
    return {*_years(year, certain=True), ("month", month), ("day", day)}


def _read_code(match: re.Match[str]) -> set[Reading]:
    readings: set[Reading] = {("code", match[0].replace("-", ""))}
    # NT500 and YMCA70週年 count something, H5N1 does not.
    simple = re.fullmatch(r"([a-z]+)-?([\d.]+)", match[0])
    if simple and (
        simple[1] in CURRENCY or any(pattern.match(match.string, match.end()) for pattern in (COUNTED, SUFFIX))
    ):
        readings.add(("number", Decimal(simple[2])))
    return readings


def _read_clock(match: re.Match[str]) -> set[Reading]:
    first, second = _sides(match)
    if first > 24 or second >= 60:  # noqa: PLR2004 - hours and minutes
        return {("score", f"{first}/{second}")}
    return {("score", f"{first}/{second}"), ("hour", first % 12), ("minute", second)}


def _read_versus(match: re.Match[str]) -> set[Reading]:
    first, second = _sides(match)
    return {("score", f"{first}/{second}")}


def _read_slash(match: re.Match[str]) -> set[Reading]:
    first, second = _sides(match)
    if not (1 <= first <= 12 and 1 <= second <= 31):  # noqa: PLR2004 - months and days
        return {("fraction", f"{first}/{second}")}
    return {("fraction", f"{first}/{second}"), ("month", first), ("day", second)}


def _sides(match: re.Match[str]) -> tuple[Decimal, Decimal]:
    first, second, *_ = (_plain_value(part) for part in re.split("[:/比]", match[0]))
    return first, second


def _plain_value(text: str) -> Decimal:
    return parse_numeral(text) or Decimal(0)


def _read_fraction(match: re.Match[str]) -> set[Reading]:
    below, _, above = match[0].partition("分之")
    whole, part = _plain_value(below), _plain_value(above)
    if not whole:
        return set()
    readings: set[Reading] = {("fraction", f"{part}/{whole}")}
    percent = 100 * part / whole
    # Others are no percentages that anyone writes, and have too many digits to be rounded.
    if percent < LARGEST_PERCENT and percent == percent.quantize(Decimal("0.0001")):
        readings.add(("percent", percent.normalize()))
    return readings


_READERS: dict[str, Callable[[re.Match[str]], set[Reading]]] = {
    "phone": _read_phone,
    "date": _read_date,
    "code": _read_code,
    "clock": _read_clock,
    "versus": _read_versus,
    "fraction": _read_fraction,
    "slash": _read_slash,
    "half": lambda _: {("percent", Decimal(50))},
}


def _token(plain: str, match: re.Match[str]) -> _Token | None:
    text = match[0]
    value = parse_numeral(text)
    if value is None:
        return None
    unit, more, end = "", "", match.end()
    if suffix := SUFFIX.match(plain, end):
        name = str(suffix.lastgroup)
        if value <= LARGEST.get(name, value):
            unit, more = name, suffix["more"] or suffix["half"] or ""
            end = end if unit == "duration" else suffix.end()
    if not HAS_ARABIC.search(text) and not _is_han_number(plain, match, value, unit):
        return None
    return _Token(match.start(), end, value, unit, more)


def _is_han_number(plain: str, match: re.Match[str], value: Decimal, unit: str) -> bool:
    """Return whether Han numerals state a number, and are not part of a word or a name."""
    text, end = match[0], match.end()
    before = plain[max(0, match.start() - 1) : match.start()]
    if before == "第":
        return value != 1 or RANKED.match(plain, end) is not None
    if text in VAGUE or text in NEVER_ALONE or before in VAGUE_BEFORE:
        return False
    if text == "一":
        return unit in {"month", "percent", "tenths", "discount"}
    if len(text) == 1 or UNIT_ONLY.fullmatch(text):
        counted = COUNTED.match(plain, end) or RANGE.match(plain, end)
        return counted is not None or (unit != "" and text not in LARGE_ALONE)
    return unit != "" or len(text) >= NAMED_DIGITS or not DIGITS_ONLY.fullmatch(text)


def _number(plain: str, token: _Token, following: _Token | None) -> Number:
    text = plain[token.start : token.end]
    readings = set(_read(plain, token, token.unit))
    if following is not None and (joint := JOINT.fullmatch(plain, token.end, following.start)):
        # 3至5萬人, 12月19、20日: the first of a list shares the unit of the next.
        if not token.unit and following.unit:
            readings.update(_read(plain, token, following.unit))
        scale = _scale(plain[following.start : following.end])
        if joint and scale and token.value < scale:
            readings.add(("number", (token.value * scale).normalize()))
    if code := re.search(r"(?<![a-z])[a-z]{1,12} \Z", plain[max(0, token.start - 14) : token.start]):
        readings.add(("code", code[0].strip() + text))
    return Number(text, token.start, token.end, frozenset(readings), _bound(plain, token))


def _scale(text: str) -> Decimal | None:
    units = [char for char in text if char in LARGE_UNITS]
    return parse_numeral("1" + units[0]) if units else None


def _read(plain: str, token: _Token, unit: str) -> set[Reading]:
    value = token.value.normalize()
    before = plain[max(0, token.start - 3) : token.start]
    readings: set[Reading] = {("number", value)}
    if unit == "month" and SPAN_BEFORE.search(before):
        readings.add((unit, value))
    elif unit in {"month", "day", "percent"}:
        readings = {(unit, value)}
    elif unit == "tenths":
        more = Decimal(5) if token.more == "半" else _plain_value(token.more or "0")
        readings = {("percent", (value * 10 + more).normalize())}
    elif unit == "discount":
        readings = {("percent", (value * 10 if value < 10 else value).normalize())}  # noqa: PLR2004 - 8折 is 80%
    elif unit == "year":
        years = _years(value, certain=ROC_BEFORE.search(before) is not None)
        readings = years if years and value >= CERTAIN_ROC else readings | years
    elif unit == "hour":
        minutes: set[Reading] = {("minute", Decimal(30))} if token.more == "半" else set()
        # 3點 is a time or, before a noun, three points.
        readings = {("hour", value % 12), *minutes, *(readings if plain[token.end - 1] == "點" else ())}
    elif before[-1:] in {"點", "時"}:
        readings.add(("minute", value))
    elif unit == "duration" and value >= CERTAIN_ROC and plain.startswith("年", token.end):
        # 114年期: nothing lasts so long that the length of it is news.
        readings |= _years(value, certain=True)
    elif unit == "" and _names_year(plain, token):
        readings |= _years(value, certain=True)
    return readings


def _names_year(plain: str, token: _Token) -> bool:
    """Return whether a bare figure may be a year: 2023臺灣燈會 and 113臺灣燈會, but not 120人."""
    if _is_western(token.value):
        return True
    return CERTAIN_ROC < token.value <= LIKELY_ROC[1] and not COUNTED.match(plain, token.end)


def _is_western(value: Decimal) -> bool:
    return LIKELY_WESTERN[0] <= value <= LIKELY_WESTERN[1]


def _years(value: Decimal, *, certain: bool) -> set[Reading]:
    """Return the Western year that a year may be; ``certain`` when nothing but a year can stand there."""
    if _is_western(value):
        return {("year", value)}
    if LIKELY_ROC[0] <= value <= LIKELY_ROC[1] or (certain and 0 < value <= LAST_ROC):
        return {("year", value + ROC_OFFSET)}
    return set()


def _bound(plain: str, token: _Token) -> Bound:
    before = plain[max(0, token.start - 3) : token.start]
    if token.unit in CALENDAR:
        return "exact"
    if AT_LEAST_BEFORE.search(before) or AT_LEAST_AFTER.match(plain, token.end):
        return "at_least"
    if AT_MOST_BEFORE.search(before):
        return "at_most"
    text = plain[token.start : token.end]
    if ABOUT_BEFORE.search(before) or ABOUT_AFTER.match(plain, token.end) or UNIT_ONLY.fullmatch(text):
        return "about"
    # 四成 stands for 41.7%, 八百人 for 812 and 12.3萬 for 123,456; 3萬 stands for 30,000.
    is_precise = HAS_ARABIC.search(text) and len(token.value.normalize().as_tuple().digits) > 1 and _scale(text)
    is_spoken = not HAS_ARABIC.search(text) and text[-1] in HAN_UNITS and text[-1] != "十"
    return "rounded" if token.unit == "tenths" or is_precise or is_spoken else "exact"
