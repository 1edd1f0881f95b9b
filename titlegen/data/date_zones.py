"""Time zones behind a time of the day: offsets, abbreviations as Taiwan means them, and names of places."""

import re
from datetime import timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

TAIWAN: Final = timezone(timedelta(hours=8))
"""Taipei has had no other offset since 1980."""

# As they are meant in Taiwan: CST is China Standard Time, not that of Chicago as in RFC 822.
_OFFSETS = {
    name: hours
    for hours, names in (
        (0, "z utc gmt ut etc/utc etc/gmt 格林威治 格林尼治"),
        (8, "cst tst hkt sgt asia/taipei asia/hong_kong asia/shanghai taipei china singapore"),
        (8, "台北 臺北 台灣 臺灣 中原 北京 香港 新加坡"),
        (9, "jst kst asia/tokyo asia/seoul tokyo korea 日本 東京 韓國 首爾"),
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
# Of these the season decides.
_PLACES = {
    name: place
    for place, names in (
        ("America/New_York", "美東 紐約 eastern"),
        ("America/Chicago", "美中 芝加哥 central"),
        ("America/Los_Angeles", "美西 洛杉磯 pacific"),
        ("Europe/London", "英國 倫敦"),
        ("Europe/Paris", "法國 巴黎 德國 柏林"),
    )
    for name in names.split()
}
# What names a zone beyond doubt and is in no list above, such as 當地時間, makes the day unknown.
_SPOKEN = "|".join(sorted(name for name in (*_OFFSETS, *_PLACES, "當地", "美國") if not name.isascii()))
_ZONE = re.compile(
    r" ?[(\[]?(?:(?P<place>[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z]*(?:[_+-]\w+)*){1,2})|"
    r"(?P<windows>[A-Z][A-Za-z. ]{1,40}?) (?:Standard|Daylight|Summer) Time|"
    rf"(?P<spoken>{_SPOKEN})(?:標準|夏令)?時間|"
    r"(?P<name>(?:Z|[A-Z]{2,5})(?![A-Za-z])))?"
    r"(?P<offset> ?(?P<sign>[+-])(?P<hours>\d{1,2})(?::?(?P<minutes>\d\d))?(?!\d))?",
    re.ASCII,
)
_MOST_HOURS = 15


class UnreadableDateError(ValueError):
    """A text names no single moment."""


def zone_behind(text: str, start: int) -> tuple[tzinfo, int]:
    """Return the zone that stands there, Taiwan's where none does, and where it ends.

    Raises:
        UnreadableDateError: it is not known.
    """
    match = _ZONE.match(text, start)
    name = match and next(filter(None, match.group("place", "windows", "spoken", "name")), "")
    if match is None or not (name or match["offset"]):
        return TAIWAN, start
    if match["offset"]:
        hours = int(match["hours"]) + int(match["minutes"] or 0) / 60
        if hours > _MOST_HOURS:
            raise UnreadableDateError(text)
        return timezone(timedelta(hours=-hours if match["sign"] == "-" else hours)), match.end()
    return _named(str(name)), match.end()


def _named(name: str) -> tzinfo:
    """Return the zone of a name.

    Raises:
        UnreadableDateError: there is none of that name.
    """
    key = name.lower()
    if key in _OFFSETS:
        return timezone(timedelta(hours=_OFFSETS[key]))
    try:
        return ZoneInfo(_PLACES.get(key, name))
    # ZoneInfo takes names for paths below a folder: one of a folder or of another file is no zone either.
    except (KeyError, ValueError, OSError) as error:
        raise UnreadableDateError(name) from error
