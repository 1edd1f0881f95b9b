"""Numbers as they are written: figures, Han numerals, dates, times, shares, scores, telephone numbers, codes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from titlegen.metrics.numerals import ARABIC, HAN_DIGITS, HAN_UNITS, LARGE_UNITS, parse_numeral

Reading = tuple[str, Decimal | str]
Bound = Literal["exact", "rounded", "at_least", "at_most", "about"]

_NUMERAL = (
    rf"(?:(?:{ARABIC} ?|[{HAN_DIGITS}]{{1,18}})?(?:[{HAN_UNITS}](?:{ARABIC}|[{HAN_DIGITS}]{{1,18}})?){{1,12}}"
    rf"|{ARABIC}|[{HAN_DIGITS}]{{1,18}})"
)
_SIDE = rf"(?:\d{{1,3}}|[{HAN_DIGITS}十]{{1,3}})"
# The first alternative that matches wins: a telephone number is no range, a date no fraction.
_SCAN = re.compile(
    # Most characters start no number: one test of the next one spares nine alternatives.
    rf"(?=[\d(a-z半{HAN_DIGITS}{HAN_UNITS}])(?:"
    r"(?P<phone>(?<![\d.])\(?0\d{1,3}\)?[- ]?\d{3,4}[- ]?\d{3,4}(?!\d))"
    r"|(?P<date>(?<![\d.])\d{2,4}(?P<mark>[/.-])\d{1,2}(?P=mark)\d{1,2}(?!\d))"
    rf"|(?P<code>(?<![a-z])[a-z]{{1,12}}-?\d{{1,8}}(?:-?[a-z]{{1,4}}\d{{1,8}})?(?:\.\d{{1,3}})?(?![\d,{HAN_UNITS}]))"
    r"|(?P<clock>(?<![\d:.])\d{1,3}:\d{1,3}(?::\d{2})?(?![\d:]))"
    rf"|(?P<versus>(?<![\d第{HAN_DIGITS}{HAN_UNITS}]){_SIDE}比{_SIDE}(?![\d{HAN_DIGITS}{HAN_UNITS}]))"
    rf"|(?P<fraction>{_NUMERAL}分之{_NUMERAL})"
    r"|(?P<slash>(?<![\d/])\d{1,4}/\d{1,4}(?![\d/]))"
    r"|(?P<half>(?<![過近逾超])(?:半數|一半)|(?<=[減砍])半)"
    rf"|(?P<number>{_NUMERAL}))"
)

# What follows a numeral and says what it counts; the first that matches wins.
_SUFFIX = re.compile(
    r"(?P<percent> ?(?:%|﹪|個?百分點|趴))"
    r"|(?P<tenths>成(?![立為功長果員績本就交人分語都衣家軍熟型形效份因了屆年])(?P<more>[1-9一二三四五六七八九半])?)"
    r"|(?P<discount>折(?![騰返磨射合疊損衷服起彎斷舊讓]))"
    r"|(?P<duration> ?(?:[週周]年|年(?:[級齡資輕紀代薪來間前後內以期]|多)|個月|[日天](?:[遊內間後前]|以[內上來])))"
    r"|(?P<year>\)? ?(?:學年|年))"
    r"|(?P<month> ?月)"
    r"|(?P<day>\)? ?(?:日(?![本系式商圓])|號(?![線碼誌召])))"
    r"|(?P<hour> ?(?:點|時(?![代間候尚常機事]))(?P<half>半)?)"
)
_CALENDAR = frozenset({"year", "month", "day", "hour"})
_LARGEST = {"month": 12, "day": 31, "hour": 24, "tenths": 10}
_JOINT = re.compile(r"[年月日號點時%成折)]{0,2} ?[、,，~至到和及與或-]{1,2} ?")
_ROC_BEFORE = re.compile(r"(?:民國|[今明去前昨後]\(?)\Z")
_LARGEST_PERCENT = Decimal(10) ** 9
_ROC_OFFSET = 1911
# Where 年 may also count years: 民國60 to 150 are calendar years, and from 100 on nothing else.
_LIKELY_ROC = (60, 150)
_CERTAIN_ROC = 100
_LAST_ROC = 199
_LIKELY_WESTERN = (1900, 2199)
_CURRENCY = frozenset({"nt", "ntd", "us", "usd", "twd", "rmb", "hk", "no"})

# A lone Han numeral is a number only before what can be counted: 三重, 七股, 統一 and 十分 are none.
_COUNTED = re.compile(
    r"[人名位個件案例歲天週周次場間家所校座棟戶元塊張支隻頭匹輛架艘部組隊項款種屆階層樓條倍坪噸顆粒枚床席桌班梯連大餘多]"
    r"|[台臺](?![灣南北中東])|公[里尺斤頃噸分克升]|小時|分鐘"
)
_HAS_ARABIC = re.compile("[0-9]")
# The 三 of 三到五歲.
_RANGE = re.compile(rf"[至到~-]{_NUMERAL}(?:{_COUNTED.pattern})")
_UNIT_ONLY = re.compile(rf"[{HAN_UNITS}]+")
_DIGITS_ONLY = re.compile(rf"[{HAN_DIGITS}]+")
# 第一 is a rank in 第一名 and 第一屆, and praise or haste in 市占第一, 第一線, 第一時間.
_RANKED = re.compile(r"[名屆次場個座批期波階季位處度回]")
# 兩三天 is no figure, and so is 數百; 初九 counts the days of the moon.
_VAGUE = frozenset("一二三四五六七八九"[i : i + 2] for i in range(8)) | {"兩三", "三兩"}
_VAGUE_BEFORE = frozenset("數幾初每")
# 陸, 伍 and 參 are words; as figures they stand in amounts only.
_NEVER_ALONE = frozenset("零〇○壹貳參肆伍陸柒捌玖贰叁陆")
_LARGE_ALONE = frozenset(HAN_UNITS) - {"十"}
_NAMED_DIGITS = 3

# 逾三月 counts months, and 三月 names one.
_SPAN_BEFORE = re.compile(r"(?:連|逾|近|達|滿|超過|約|隔|歷時)\Z")
_AT_LEAST_BEFORE = re.compile(r"(?:逾|超過|超|破|突破|上|至少|起碼|不止|衝上|多達|高達)\Z")
_AT_MOST_BEFORE = re.compile(r"(?:近|將近|逼近|不到|未滿|未達|低於)\Z")
_ABOUT_BEFORE = re.compile(r"(?:約|大約|約莫)\Z")
_AT_LEAST_AFTER = re.compile(r"(?:餘|多(?![元樣功媒久少])|以上|起)")
_ABOUT_AFTER = re.compile(r"\w{0,2}左右")


@dataclass(frozen=True, slots=True)
class Number:
    """One number in a text: what stands there, where, and everything that it may mean."""

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
    for match in _SCAN.finditer(plain):
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
        simple[1] in _CURRENCY or any(pattern.match(match.string, match.end()) for pattern in (_COUNTED, _SUFFIX))
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
    if percent < _LARGEST_PERCENT and percent == percent.quantize(Decimal("0.0001")):
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
    if suffix := _SUFFIX.match(plain, end):
        name = str(suffix.lastgroup)
        if value <= _LARGEST.get(name, value):
            unit, more = name, suffix["more"] or suffix["half"] or ""
            end = end if unit == "duration" else suffix.end()
    if not _HAS_ARABIC.search(text) and not _is_han_number(plain, match, value, unit):
        return None
    return _Token(match.start(), end, value, unit, more)


def _is_han_number(plain: str, match: re.Match[str], value: Decimal, unit: str) -> bool:
    """Return whether Han numerals state a number, and are not part of a word or a name."""
    text, end = match[0], match.end()
    before = plain[max(0, match.start() - 1) : match.start()]
    if before == "第":
        return value != 1 or _RANKED.match(plain, end) is not None
    if text in _VAGUE or text in _NEVER_ALONE or before in _VAGUE_BEFORE:
        return False
    if text == "一":
        return unit in {"month", "percent", "tenths", "discount"}
    if len(text) == 1 or _UNIT_ONLY.fullmatch(text):
        counted = _COUNTED.match(plain, end) or _RANGE.match(plain, end)
        return counted is not None or (unit != "" and text not in _LARGE_ALONE)
    return unit != "" or len(text) >= _NAMED_DIGITS or not _DIGITS_ONLY.fullmatch(text)


def _number(plain: str, token: _Token, following: _Token | None) -> Number:
    text = plain[token.start : token.end]
    readings = set(_read(plain, token, token.unit))
    if following is not None and (joint := _JOINT.fullmatch(plain, token.end, following.start)):
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
    if unit == "month" and _SPAN_BEFORE.search(before):
        readings.add((unit, value))
    elif unit in {"month", "day", "percent"}:
        readings = {(unit, value)}
    elif unit == "tenths":
        more = Decimal(5) if token.more == "半" else _plain_value(token.more or "0")
        readings = {("percent", (value * 10 + more).normalize())}
    elif unit == "discount":
        readings = {("percent", (value * 10 if value < 10 else value).normalize())}  # noqa: PLR2004 - 8折 is 80%
    elif unit == "year":
        years = _years(value, certain=_ROC_BEFORE.search(before) is not None)
        readings = years if years and value >= _CERTAIN_ROC else readings | years
    elif unit == "hour":
        minutes: set[Reading] = {("minute", Decimal(30))} if token.more == "半" else set()
        # 3點 is a time or, before a noun, three points.
        readings = {("hour", value % 12), *minutes, *(readings if plain[token.end - 1] == "點" else ())}
    elif before[-1:] in {"點", "時"}:
        readings.add(("minute", value))
    elif unit == "" and _names_year(plain, token):
        readings |= _years(value, certain=True)
    return readings


def _names_year(plain: str, token: _Token) -> bool:
    """Return whether a bare figure may be a year: 2023臺灣燈會 and 113臺灣燈會, but not 120人."""
    if _is_western(token.value):
        return True
    return _CERTAIN_ROC < token.value <= _LIKELY_ROC[1] and not _COUNTED.match(plain, token.end)


def _is_western(value: Decimal) -> bool:
    return _LIKELY_WESTERN[0] <= value <= _LIKELY_WESTERN[1]


def _years(value: Decimal, *, certain: bool) -> set[Reading]:
    """Return the Western year that a year may be; ``certain`` when nothing but a year can stand there."""
    if _is_western(value):
        return {("year", value)}
    if _LIKELY_ROC[0] <= value <= _LIKELY_ROC[1] or (certain and 0 < value <= _LAST_ROC):
        return {("year", value + _ROC_OFFSET)}
    return set()


def _bound(plain: str, token: _Token) -> Bound:
    before = plain[max(0, token.start - 3) : token.start]
    if token.unit in _CALENDAR:
        return "exact"
    if _AT_LEAST_BEFORE.search(before) or _AT_LEAST_AFTER.match(plain, token.end):
        return "at_least"
    if _AT_MOST_BEFORE.search(before):
        return "at_most"
    text = plain[token.start : token.end]
    if _ABOUT_BEFORE.search(before) or _ABOUT_AFTER.match(plain, token.end) or _UNIT_ONLY.fullmatch(text):
        return "about"
    # 四成 stands for 41.7%, 八百人 for 812 and 12.3萬 for 123,456; 3萬 stands for 30,000.
    is_precise = _HAS_ARABIC.search(text) and len(token.value.normalize().as_tuple().digits) > 1 and _scale(text)
    is_spoken = not _HAS_ARABIC.search(text) and text[-1] in HAN_UNITS and text[-1] != "十"
    return "rounded" if token.unit == "tenths" or is_precise or is_spoken else "exact"
