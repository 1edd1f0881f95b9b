"""Dates out of what programs, spreadsheets, cameras and file names put around them."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# What a program prints of a date: datetime.date(2024, 5, 1), Timestamp('2024-05-01'), ISODate("…"), new Date(0).
_PRINTED = re.compile(r"=?(?:new )?(?P<name>[A-Za-z_.][\w.]*)\((?P<inner>[^()]+)\)", re.ASCII)
_PRINTED_ZONE = re.compile(r", ?(?:tz|tzinfo|freq)=[^\0]*(?=\)$)")
# JavaScript counts months from 0.
_FROM_ZERO = ("Date", "UTC")
_PRINTED_PARTS = re.compile(r"(\d{4}), ?(\d{1,2}), ?(\d{1,2})(?:, ?\d+)*", re.ASCII)
# Cameras and file names put the same mark between day and time, or between hours and minutes.
_ONE_MARK = re.compile(r"(\d{4}([:_-])\d\d\2\d\d)[ T_-](\d\d)[:_-]?(\d\d)(?:[:_-]?(\d\d))?", re.ASCII)
# Marks that stand between other things, too, once they are all that a date has.
_ODD_MARK = re.compile(r"(\d{3,4})([:;|~\\])(\d{1,2})\2(\d{1,2})", re.ASCII)
# LDAP and PDF: 20240501103000.0Z, D:20240501103000+08'00'.
_ZONED_STAMP = re.compile(
    r"(?:D:)?(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:[.,]\d+)?(Z|[+-]\d\d)(?:'?(\d\d)'?)?", re.ASCII
)
_TAG = re.compile(
    r"<time\b[^<>]{0,200}?datetime=[\"']([^\"'<>]{1,60})[\"'][^<>]{0,200}>.*|</?[a-z][^<>]{0,200}>", re.DOTALL
)
# ="…" keeps Excel from reading a cell, # stands around dates in Access.
_CELL = re.compile(r"=\"([^\"]+)\"|#([^#]+)#")
# As MongoDB, Firestore, DynamoDB, Parse, PHP, Java and converters of XML export a moment.
_KEYS = (
    *("$date", "$numberLong", "$timestamp", "t", "seconds", "_seconds", "epochSecond", "iso", "date", "datetime"),
    *("timestamp", "value", "@value", "#text", "N", "S"),
)


def unwrap_date_text(text: str) -> str:
    """Return a date out of what stands around it or between its parts."""
    if not text[:1].isdigit():
        text = _without_wrap(text)
    if match := _ONE_MARK.fullmatch(text):
        return f"{match[1].replace(match[2], '-')} {match[3]}:{match[4]}:{match[5] or '00'}"
    if match := _ODD_MARK.fullmatch(text):
        return f"{match[1]}-{match[3]}-{match[4]}"
    if match := _ZONED_STAMP.fullmatch(text):
        year, month, day, hour, minute, second, zone, minutes = match.groups("")
        return f"{year}-{month}-{day} {hour}:{minute}:{second}{zone}{minutes}"
    return text


def _without_wrap(text: str) -> str:
    if "<" in text:
        text = _TAG.sub(lambda match: match[1] or " ", text).strip()
    if match := _CELL.fullmatch(text):
        text = match[1] or match[2]
    text = text.replace("\\/", "/")
    if match := _PRINTED.fullmatch(_PRINTED_ZONE.sub("", text)):
        inner = match["inner"].strip(" '\"")
        parts = _PRINTED_PARTS.fullmatch(inner)
        if parts is None:
            text = inner
        elif not match["name"].endswith(_FROM_ZERO):
            text = "-".join(parts.groups())
    return text


def held_in_text(text: str) -> Any:
    """Return the struct that a text holds as JSON, None for any other text."""
    if not text.startswith("{"):
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def unwrap_struct(value: Mapping[str, Any]) -> Any:
    """Return what a struct holds for a date under one of the usual names, or its year, month and day; else None."""
    if value.keys() >= {"year", "month", "day"}:
        return [int(value[key]) for key in ("year", "month", "day")]
    return next((value[key] for key in _KEYS if value.get(key) is not None), None)
