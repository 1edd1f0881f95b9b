"""Dates as people write them, made plain: widths, marks, Han numerals, weekdays, times of the day and zones."""

import re
import unicodedata
from datetime import date, datetime, time, timedelta, timezone
from typing import Final

TAIWAN: Final = timezone(timedelta(hours=8))
"""Taipei has had no other offset since 1980."""

# Simplified characters, too, and every dash, slash and dot that a keyboard or an editor makes of the plain one.
_MARKS = str.maketrans(
    "‐‑‒–—―−─∕⁄。·‧・○贰叁陆华国号时点礼发周农历'’\"", "--------//....〇貳參陸華國號時點禮發週農曆   "
)
_DIGITS = {digit: value for row in ("〇一二三四五六七八九", "零壹貳參肆伍陸柒捌玖") for value, digit in enumerate(row)}
_DIGITS |= {"兩": 2, "元": 1}
_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100}
_NUMERAL = re.compile(rf"[{''.join(_DIGITS)}{''.join(_UNITS)}廿卅]+(?=[年月日號時點分秒])")
# 二０二四 and 二O二四, as an input method makes a circle that is a digit or a letter.
_ROUND = re.compile(r"(?<=[一二三四五六七八九])[0Oo]+(?=[一二三四五六七八九年])")
# What a program prints of a date: datetime.date(2024, 5, 1), Timestamp('2024-05-01'), ISODate("…"), new Date(0).
_PRINTED = re.compile(r"(?:new )?(?P<name>[A-Za-z_.]+)\((?P<inner>[^()]+)\)", re.ASCII)
# JavaScript counts months from 0.
_FROM_ZERO = ("Date", "UTC")
_PRINTED_PARTS = re.compile(r"(\d{4}), ?(\d{1,2}), ?(\d{1,2})(?:, ?\d+)*(?:, ?tzinfo=.*)?", re.ASCII)
# Cameras and file names put the same mark between day and time, or between hours and minutes.
_ONE_MARK = re.compile(r"(\d{4}([:_-])\d\d\2\d\d)[ T_-](\d\d)[:_-]?(\d\d)(?:[:_-]?(\d\d))?", re.ASCII)
_ENGLISH_DAY = "mon(?:day)?|tue(?:s|sday)?|wed(?:nesday)?|thu(?:r|rs|rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?"
_WEEKDAY = re.compile(
    r"[(\[]?(?:星期|週|禮拜)(?P<long>[一二三四五六日天])[)\]]?|[(\[](?P<short>[一二三四五六日])[)\]]|"
    rf"(?<![a-z])[(\[]?(?P<english>{_ENGLISH_DAY})\b[)\].]*,?",
    re.IGNORECASE,
)
_WEEKDAYS = {name: number for number, name in enumerate("一二三四五六日")} | {"天": 6}
_WEEKDAYS |= {name: number for number, name in enumerate(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])}
# 發布時間：, Published on, Date: and their like, in front of the first number.
_LABEL = re.compile(
    r"[^\d:]{1,24}: ?|"
    r"(?:[發公][布佈]|刊登|刊出|更新|公告|張貼|上架|上版|上線|上傳|發稿|發表|出版|建立)(?:日期|時間|日)?[於在]? ?|"
    r"(?:published|posted|updated|created|date)(?: on| at)? ",
    re.IGNORECASE,
)
_LATER = re.compile(r"(?:最後)?(?:更新|修改|編輯)|(?:last )?(?:updated|modified|edited)", re.IGNORECASE)
MONTHS = {
    name: str(number)
    for number, names in enumerate(
        (
            "jan january",
            "feb february",
            "mar march",
            "apr april",
            "may",
            "jun june",
            "jul july",
            "aug august",
            "sep sept september",
            "oct october",
            "nov november",
            "dec december",
        ),
        start=1,
    )
    for name in names.split()
}
_TIME = re.compile(
    r"(?P<period>上午|凌晨|清晨|早上|午前|中午|下午|午後|傍晚|晚上|晚間|深夜|[ap]\.?m\b\.?)? ?(?<!\d)(?P<hour>\d{1,2})"
    r"(?:(?::|時|點鐘?) ?(?:整|半|(?P<minute>\d{1,2})(?:(?::|分) ?(?:(?P<second>\d{1,2})(?:[.,]\d{1,9})?秒?)?)?)?|"
    r"(?= ?[ap]\.?m\b))(?: ?(?P<after>[ap]\.?m\b)\.?)?",
    re.IGNORECASE,
)
_AFTERNOON = frozenset({"pm", "下午", "午後", "傍晚", "晚上", "晚間", "深夜"})
_MORNING = frozenset({"am", "上午", "凌晨", "清晨", "早上", "午前"})
_NOON = 12
# As they are meant in Taiwan: CST is China Standard Time, not that of Chicago as in RFC 822.
_ZONES = {
    name: hours
    for hours, names in (
        (0, "z utc gmt ut"),
        (8, "cst tst hkt sgt asia/taipei asia/hong_kong asia/shanghai"),
        (9, "jst kst asia/tokyo asia/seoul"),
        (-4, "edt"),
        (-5, "est cdt"),
        (-6, "mdt"),
        (-7, "mst pdt"),
        (-8, "pst"),
        (1, "bst cet"),
        (2, "cest"),
    )
    for name in names.split()
}
_ZONE = re.compile(
    r" ?[(\[]?(?P<name>(?:Z|[A-Z]{2,5})(?![A-Za-z])|Asia/[A-Z][a-z]+(?:_[A-Z][a-z]+)?)?"
    r"(?P<offset> ?(?P<sign>[+-])(?P<hours>\d{1,2})(?::?(?P<minutes>\d\d))?(?!\d))?",
    re.ASCII,
)
_MOST_HOURS = 15


class UnreadableDateError(ValueError):
    """A text names no single moment."""


def fold_date_text(text: str) -> tuple[str, int | None]:
    """Return the text with plain digits and marks and without label and weekday, and the weekday, 0 for Monday."""
    text = unicodedata.normalize("NFKC", text).translate(_MARKS)
    text = " ".join("".join(char for char in text if unicodedata.category(char) != "Cf").split())
    text = _ROUND.sub(lambda match: "〇" * len(match[0]), text)
    text = _NUMERAL.sub(lambda match: str(_numeral(match[0])), text)
    text = text[match.end() :] if (match := _LABEL.match(text)) else text
    weekday = None
    if match := _WEEKDAY.search(text):
        name = match["long"] or match["short"] or match["english"][:3].lower()
        weekday = _WEEKDAYS[name]
        text = f"{text[: match.start()]} {text[match.end() :]}"
    return " ".join(text.split()).strip(" ,()[]「」『』【】<>"), weekday


def unwrap_date_text(text: str) -> str:
    """Return a date out of what programs, cameras and file names put around it or between its parts."""
    if match := _PRINTED.fullmatch(text):
        inner = match["inner"].strip(" '\"")
        parts = _PRINTED_PARTS.fullmatch(inner)
        if parts is None:
            text = inner
        elif not match["name"].endswith(_FROM_ZERO):
            text = "-".join(parts.groups())
    if match := _ONE_MARK.fullmatch(text):
        return f"{match[1].replace(match[2], '-')} {match[3]}:{match[4]}:{match[5] or '00'}"
    return text


def _numeral(text: str) -> int:
    """Return the value of Han numerals: one by one (一一三), or with units (一百一十三, 廿三)."""
    text = text.replace("廿", "二十").replace("卅", "三十")
    if not set(text) & set(_UNITS):
        return int("".join(str(_DIGITS[char]) for char in text))
    total, digit = 0, 0
    for char in text:
        if char in _UNITS:
            total, digit = total + (digit or 1) * _UNITS[char], 0
        else:
            digit = _DIGITS[char]
    return total + digit


def without_later_dates(text: str) -> str:
    """Return the text up to the word that begins a note of its last change."""
    match = _LATER.search(text)
    return text[: match.start()] if match else text


def time_of_day(text: str) -> tuple[timedelta, str]:
    """Return how far the first time of the day lies from midnight in Taiwan, and the text without it.

    That is nothing where the text has no time, and beyond a day where its zone is behind Taiwan's.

    Raises:
        UnreadableDateError: no clock shows it, or the zone is not known.
    """
    match = _TIME.search(text)
    if match is None:
        return timedelta(), text
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    period = (match["after"] or match["period"] or "").lower().replace(".", "")
    if (period in _AFTERNOON and hour < _NOON) or (period == "中午" and hour < _NOON - 1):
        hour += _NOON
    elif period in _MORNING and hour == _NOON:
        hour = 0
    try:
        # Midnight at the end of a day is the next day's, as in ISO 8601; a leap second is not.
        since = (
            timedelta(days=1) if (hour, minute, second) == (24, 0, 0) else _since(time(hour, minute, min(second, 59)))
        )
    except ValueError as error:
        raise UnreadableDateError(text) from error
    offset, end = _offset(text, match.end())
    return since + timedelta(hours=8) - offset, f"{text[: match.start()]} {text[end:]}"


def _since(clock: time) -> timedelta:
    return timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second)


def _offset(text: str, start: int) -> tuple[timedelta, int]:
    """Return a zone's offset from UTC, Taiwan's where none stands there, and where it ends."""
    match = _ZONE.match(text, start)
    if match is None or not (match["name"] or match["offset"]):
        return timedelta(hours=8), start
    if match["offset"]:
        hours: float = int(match["hours"]) + int(match["minutes"] or 0) / 60
        hours = -hours if match["sign"] == "-" else hours
    else:
        hours = _ZONES.get(match["name"].lower(), _MOST_HOURS + 1)
    if abs(hours) > _MOST_HOURS:
        raise UnreadableDateError(text)
    return timedelta(hours=hours), match.end()


def later(day: date, since_midnight: timedelta) -> date:
    """Return the day of a moment that lies so far from the midnight with which a day begins."""
    return (datetime.combine(day, time()) + since_midnight).date()
