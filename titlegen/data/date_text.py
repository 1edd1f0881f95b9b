"""Dates as people write them, made plain: widths, marks, Han numerals, weekdays, times of the day and zones."""

import re
import unicodedata
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final, NamedTuple

from titlegen.data.date_zones import TAIWAN, UnreadableDateError, zone_behind

# Simplified characters, too, and every dash, slash and dot that a keyboard or an editor makes of the plain one.
_MARKS = str.maketrans(
    "‐‑‒–—―−─∕⁄。·‧・○贰叁陆华国号时点礼发周农历'’\"", "--------//....〇貳參陸華國號時點禮發週農曆   "
)
_DIGITS = {digit: value for row in ("〇一二三四五六七八九", "零壹貳參肆伍陸柒捌玖") for value, digit in enumerate(row)}
_DIGITS["兩"] = 2
_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100}
_NUMERAL = re.compile(rf"[{''.join(_DIGITS)}{''.join(_UNITS)}廿卅]+(?= ?[年月日號時點分秒])")
# The first year and the first month; 公元 begins with the same character's other meaning.
_FIRST = re.compile(r"元(?= ?[年月])")
# As Oracle and DB2 write a time behind a date.
# As Git writes a moment: the year between time and zone.
_YEAR_IN_TIME = re.compile(r"(\d\d:\d\d:\d\d) (\d{4}) ([+-]\d{4})$", re.ASCII)
_DOTTED_CLOCK = re.compile(r"(?<=\d[ T-])(\d\d)\.(\d\d)\.(\d\d)(?!\d)", re.ASCII)
# 二０二四 and 二O二四, as an input method makes a circle that is a digit or a letter.
_ROUND = re.compile(r"(?<=[一二三四五六七八九])[0Oo]+(?=[一二三四五六七八九年])")
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
    r"(?:published|posted|(?:last )?(?:updated|modified|edited)|created|date|timestamp)(?: on| at)? ",
    re.IGNORECASE,
)
_LATER = re.compile(r"(?:最後)?(?:更新|修改|編輯)|(?:last )?(?:updated|modified|edited)", re.IGNORECASE)
_LUNAR = re.compile(r"[農陰]曆|初[一二三四五六七八九十\d]|正月|臘月")
# Other calendars, a span, a further number, a letter or bracket that belongs to the number.
_CHANGES_DATE = re.compile(
    r"\d|[-~<>=+至到前後]|令和|平成|昭和|大正|明治|慶應|佛|回曆|回教|檀紀|主體|黃帝|干支|農|陰|舊曆|"
    r"(?<![A-Za-z])[HSRTM]\.? ?$|[A-Za-z]\(?$|.{25}"
)
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


def fold_date_text(text: str) -> tuple[str, int | None]:
    """Return the text with plain digits and marks and without label and weekday, and the weekday, 0 for Monday."""
    text = unicodedata.normalize("NFKC", text).translate(_MARKS)
    text = " ".join("".join(char for char in text if unicodedata.category(char) != "Cf").split())
    text = _ROUND.sub(lambda match: "〇" * len(match[0]), text).replace("元旦", "1月1日")
    text = _YEAR_IN_TIME.sub(r"\1 \3 \2", text)
    text = _FIRST.sub("1", _DOTTED_CLOCK.sub(r"\1:\2:\3", text))
    text = _NUMERAL.sub(lambda match: str(_numeral(match[0])), text)
    text = text[match.end() :] if (match := _LABEL.match(text)) else text
    weekday = None
    if match := _WEEKDAY.search(text):
        name = match["long"] or match["short"] or match["english"][:3].lower()
        weekday = _WEEKDAYS[name]
        text = f"{text[: match.start()]} {text[match.end() :]}"
    return " ".join(text.split()).strip(" ,()[]「」『』【】<>"), weekday


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


def is_lunar(text: str) -> bool:
    """Return whether a text counts its days by the moon."""
    return _LUNAR.search(text.partition("日")[0]) is not None


def changes_date(head: str) -> bool:
    """Return whether what stands in front of a date makes another date of it; an outlet's name or a label does not."""
    return _CHANGES_DATE.search(head) is not None


def without_later_dates(text: str) -> str:
    """Return the text up to the word that begins a note of its last change."""
    match = _LATER.search(text)
    return text[: match.start()] if match else text


class Clock(NamedTuple):
    """A time of the day, somewhere."""

    time: time
    zone: tzinfo
    days: int = 0
    """1 for the midnight at the end of a day."""


MIDNIGHT: Final = Clock(time(), TAIWAN)


def time_of_day(text: str) -> tuple[Clock, str]:
    """Return the first time of the day in a text, Taiwan's midnight where there is none, and the text without it.

    Raises:
        UnreadableDateError: no clock shows it, or the zone is not known.
    """
    match = _TIME.search(text)
    if match is None:
        return MIDNIGHT, text
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    period = (match["after"] or match["period"] or "").lower().replace(".", "")
    if (period in _AFTERNOON and hour < _NOON) or (period == "中午" and hour < _NOON - 1):
        hour += _NOON
    elif period in _MORNING and hour == _NOON:
        hour = 0
    # Midnight at the end of a day is the next day's, as in ISO 8601; a leap second is not.
    days = int((hour, minute, second) == (24, 0, 0))
    try:
        clock = time() if days else time(hour, minute, min(second, 59))
    except ValueError as error:
        raise UnreadableDateError(text) from error
    zone, end = zone_behind(text, match.end())
    return Clock(clock, zone, days), f"{text[: match.start()]} {text[end:]}"


def day_in_taiwan(day: date, clock: Clock) -> date:
    """Return Taiwan's day at a time of a day somewhere."""
    moment = datetime.combine(day + timedelta(days=clock.days), clock.time, clock.zone)
    return moment.astimezone(TAIWAN).date()
