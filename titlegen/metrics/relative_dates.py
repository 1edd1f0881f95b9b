"""Days and years that are named by their distance: 昨日, 明年, 下週三."""

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal

Reading = tuple[str, Decimal | str]

_WORD = re.compile(
    r"(?P<day>[今明翌昨](?=\(|[天日晚晨早](?!之))|大後天|後天|前天)[天日晚晨早]?"
    r"|(?P<year>[今明去前後])(?=\(?\d{0,4}\)?年)年?"
    r"|(?<![一二三四五六七八九十兩每數\d])(?:[週周]|星期|禮拜)(?P<weekday>[一二三四五六日天])(?![年刊報])"
)
_DAYS = {"今": 0, "明": 1, "翌": 1, "昨": -1, "後天": 2, "前天": -2, "大後天": 3}
_YEARS = {"今": 0, "明": 1, "去": -1, "前": -2, "後": 2}
_WEEKDAYS = "一二三四五六日"


def find_relative(plain: str, date: str | None, *, is_article: bool) -> Iterator[tuple[int, int, frozenset[Reading]]]:
    """Yield start, end and readings of each relative date; with an ISO ``date`` of publication also the day it means.

    An article's 昨日 also vouches for the month and the year of that day. A title's 今天 and 今年 are left out: they
    claim nothing that the day of publication does not say.
    """
    published = _parse(date)
    for match in _WORD.finditer(plain):
        readings: set[Reading] = set()
        offset: int | None
        if word := match["day"]:
            offset = _DAYS[word]
            readings.add(("relative day", Decimal(offset)))
            days = [published + dt.timedelta(days=offset)] if published else []
        elif word := match["year"]:
            offset = _YEARS[word]
            readings.add(("relative year", Decimal(offset)))
            days = []
            if published:
                readings.add(("year", Decimal(published.year + offset)))
        else:
            offset = None
            weekday = _WEEKDAYS.index(match["weekday"].replace("天", "日"))
            readings.add(("weekday", Decimal(weekday)))
            days = _near_days(published, weekday) if published else []
        for day in days:
            readings.add(("day", Decimal(day.day)))
            if is_article:
                readings |= {("month", Decimal(day.month)), ("year", Decimal(day.year))}
        if is_article or offset != 0:
            yield match.start(), match.end(), frozenset(readings)


def _near_days(published: dt.date, weekday: int) -> list[dt.date]:
    """Return the days with that weekday from a week before to two weeks after publication: 週六 may be any of them."""
    ahead = published + dt.timedelta(days=(weekday - published.weekday()) % 7)
    return [ahead + dt.timedelta(weeks=weeks) for weeks in (-1, 0, 1)]


def _parse(date: str | None) -> dt.date | None:
    try:
        day = dt.date.fromisoformat(date or "")
    except ValueError:
        return None
    # At the ends of the calendar there is no day before or after.
    return day if dt.MINYEAR < day.year < dt.MAXYEAR else None
