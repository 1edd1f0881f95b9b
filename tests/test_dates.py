import datetime as dt
import decimal
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from articles import article, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from titlegen.data import load_split, prepare
from titlegen.data.date_order import OrderCounts, decide_orders
from titlegen.data.date_reading import (
    ABSENT,
    AMBIGUOUS,
    CONTRADICTED,
    DAY_FIRST,
    FORMS,
    MONTH_FIRST,
    ROC,
    UNKNOWN,
    YEAR_FIRST,
)
from titlegen.data.dates import read_date
from titlegen.errors import DataError
from titlegen.settings import DataSettings

Prepare = Callable[..., tuple[Path, dict[str, Any]]]

FIRST_OF_MAY = [
    *("2024-05-01", "2024-05-01T10:00:00", "2024-05-01T10:00:00.123456789+08:00", "2024-05-01T10:00:00+0800"),
    *("2024-W18-3", "2024W183", "2024-122", "20240501", "20240501T103000Z", "20240501103000", "202405011030"),
    *("2024050110", "20240501.0", "2024/5/1", "2024.05.01", "2024_05_01", "2024 05 01", "2024, 5, 1", " 2024-5-1 "),
    *("２０２４／０５／０１", "２０２４年５月１日", "2024–05–01", "2024−05−01", "2024∕5∕1", "2024・05・01"),
    *("\u200e2024\u200e/\u200e5\u200e/\u200e1", "「2024-05-01」", "'2024-05-01'"),
    *("1130501", "1130501.0", "1130501 10:30", "113/5/1", "113.05.01", "113-05-01", "0113/05/01", "0113-05-01"),
    *("民國113年5月1日", "民國 113 年 05 月 01 日", "民國113.5.1", "民國1130501", "中華民國113年5月1日(星期三)"),
    *("民國一百一十三年五月一日", "民國一百十三年五月一日", "中華民國一一三年五月一日", "中华民国113年5月1号"),
    *("民國壹佰壹拾參年伍月壹日", "R.O.C. 113/05/01", "113年5月1日 下午3時20分"),
    *("2024年5月1日 星期三 上午10:30", "2024/5/1 下午 03:20:11", "2024-05-01 (三) 10:00", "2024年05月01日10:30"),
    *("公元2024年5月1日", "西元 2024 年 5 月 1 日", "二〇二四年五月一日", "二○二四年五月一日下午三時", "5月1日, 2024"),
    *("發布時間：2024-05-01 10:00", "2024/05/01 10:00 更新 2024/05/02 11:00", "發布 2024/05/01", "10:30 2024/05/01"),
    *("Wed, 01 May 2024 01:00:00 GMT", "Wed, 1 May 2024 09:00:00 +0800", "Wednesday, 01-May-24 01:00:00 GMT"),
    *("Wed May  1 09:00:00 2024", "Wed May 01 09:00:00 CST 2024", "Wed May 01 2024 09:00:00 GMT+0800 (台北標準時間)"),
    *("May 1, 2024", "May 1, 2024 10:00 AM", "Published: May 1st, 2024", "1 May 2024", "1st of May 2024"),
    *("1-MAY-2024", "01/May/2024:10:00:00 +0800", "2024-May-01", "Wednesday, May 1, 2024 at 10:00 a.m."),
    *("2024-05-01 10:00:00 UTC", "2024-05-01 10:00:00 +0800 CST", "2024-05-01T10:00:00.000+08:00[Asia/Taipei]"),
    *("1714521600", "1714521600.25", "1714521600000", "1714521600000000", "1714521600000000000"),
    *("/Date(1714521600000+0800)/", "45413", "45413.375", "Wed 5/1/2024", "5/1/2024 (三)", "2024-05-01T23:59:60"),
    *(1714521600, 1714521600.5, 1714521600000, 45413, 45413.375, 1130501, 20240501, 20240501.0),
    *(decimal.Decimal(1714521600), np.int64(1714521600), np.datetime64("2024-05-01"), b"2024-05-01"),
    *({"$date": "2024-05-01T00:00:00Z"}, {"$date": {"$numberLong": "1714521600000"}}, [2024, 5, 1], ["2024-05-01"]),
    *({"year": 2024, "month": 5, "day": 1}, {"seconds": 1714521600, "nanoseconds": 0}, {"_seconds": 1714521600}),
    *("二０二四年五月一日", "二O二四年五月一日", "發佈日期 2024-05-01", "上版 113-05-01", "公佈日期：113.5.1"),
    *("2024:05:01 10:00:00", "2024_05_01_103000", "2024-05-01-10-00-00", "2024-05-01 10-30", "2024-05-01_1030"),
    *("datetime.date(2024, 5, 1)", "datetime.datetime(2024, 5, 1, 8, 0, tzinfo=UTC)", "Timestamp('2024-05-01 08:00')"),
    *('ISODate("2024-05-01T00:00:00Z")', "new Date(1714521600000)", "to_date('2024-05-01')"),
    *(
        "Wed May 1 10:30:00 2024 +0800",
        "5月 1, 2024",
        "113年5月1日電",
        "2024年5月1日（農曆三月廿三）",
        "Minguo 113/05/01",
    ),
    # Outlets, columns and bylines in front or behind, and labels of all kinds.
    *("聯合報 2024-05-01", "中央社 2024/05/01 10:30", "TVBS 2024/05/01", "〔記者王小明／台北報導〕2024-05-01"),
    *("2024-05-01 10:30 聯合報 記者王小明／即時報導", "113年05月01日報導", "2024/05/01 見報", "建檔日期 2024/05/01"),
    *(
        "上稿時間 2024-05-01 10:30",
        "首次上稿 2024-05-01",
        "Last modified on 2024-05-01",
        "於2024-05-01發布",
        "(三) 2024/05/01",
    ),
    # The Republic's years beside spaces, 元, and as many digits as there are.
    *(
        "中華民國 一一三 年 五 月 一 日",
        "公元二零二四年五月一日",
        "西元二〇二四年五月一日",
        "CE 2024-05-01",
        "113050110",
        "11305011030",
    ),
    *(
        "1130501 上午",
        "0113年5月1日",
        "民國0113年05月01日",
        "２０２４．５．１",
        "2024;05;01",
        "2024|05|01",
        "2024\\05\\01",
        "2024:05:01",
    ),
    # Databases, spreadsheets and documents.
    *("01-MAY-2024 10.30.00.000000 AM", "2024-05-01-10.30.00.000000", "2024-05-01 10.30.00", "20240501103000.0Z"),
    *("D:20240501103000+08'00'", '="2024-05-01"', "=DATE(2024,5,1)", "#2024-05-01#", "\\/Date(1714521600000)\\/"),
    *(
        '<time datetime="2024-05-01T10:30:00+08:00">昨天</time>',
        "<time>2024-05-01</time>",
        '{"$date":"2024-05-01T02:00:00Z"}',
    ),
    *(
        "datetime.datetime(2024, 5, 1, 10, 30, tzinfo=zoneinfo.ZoneInfo(key='Asia/Taipei'))",
        "TIMESTAMP '2024-05-01 10:30:00'",
    ),
    *(
        "numpy.datetime64('2024-05-01')",
        "Timestamp('2024-05-01 10:30:00+0800', tz='Asia/Taipei')",
        {"value": "2024-05-01"},
    ),
    *(
        {"date": "2024-05-01 10:30:00.000000", "timezone_type": 3},
        {"__type": "Date", "iso": "2024-05-01T02:30:00.000Z"},
    ),
    *({"epochSecond": 1714521600, "nano": 0}, {"$timestamp": {"t": 1714521600, "i": 1}}, {"N": "1714521600"}),
    *(dt.date(2024, 5, 1), dt.datetime(2024, 5, 1, 0, 30)),  # noqa: DTZ001 - as a file without time zones has it
]

NO_DATE = [
    *("113/13/45", "0002-11-30", "9999", "9999-12-31", "2024", "2024-05", "202405", "2024-W18", "2024-13-01", 2024),
    *("2024-02-30", "民國113年2月30日", "32 May 2024", "May 2024", "2023-366", "99999999", "1234567", "12345", -1),
    *("Date.UTC(2024,4,1)", "new Date(2024, 4, 1)", "1.7145216E9", "2024:13:01 10:00:00", "f()"),
    *("昨天", "3小時前", "2 hours ago", "5月1日", "5/1", "12:00", "113年", "民國", "二〇二四", "令和6年5月1日"),
    *("農曆2024年三月廿三日", "2024年5月1日至3日", "2024-05-01 ~ 2024-05-03", "2024-05-01/2024-05-03", "May 1-3, 2024"),
    *(
        "#REF!",
        "########",
        "-62135596800",
        "5月32日",
        "2024-05-01,2024-05-02",
        "民國300年5月1日",
        "TBD 5/1",
        "3版 2024/05/01",
    ),
    *(
        "R6/5/1",
        "H6-5-1",
        "西元前2024/5/1",
        "佛曆 2567/05/01",
        "v2024.05.01",
        "<2024-05-01 2024-05-02>",
        "自2024-05-01至5/3",
    ),
    *("2024-05-01 20:00 當地時間", "2024-05-01 20:00 Not/AZone", "2024-05-01 20:00 Fiji Standard Time"),
    # .NET's ticks, which would be 1990 in nanoseconds.
    *("638501184000000000", 638501184000000000),
    *("2024-05-01 25:00", "2024-05-01 10:00 XYZ", "24/24/24", "2567/5/1", "１.７E＋０９", "x" * 10_000, "\ud800"),
    *(True, float("inf"), 10**30, b"\xff", object(), [], [[[]]], {"day": 1}, dt.time(10, 0)),
]

# As MySQL, .NET, Go and pandas write that there is none.
ZERO_DATES = [
    *("0000-00-00", "0000-00-00 00:00:00", "0001-01-01", "0001-01-01 00:00:00", "0001-01-01T00:00:00Z", "0001/1/1"),
    *("00010101", "00000000", "00000000000000", "<NA>", "—", "1899-12-30", "1900-01-00", "00/00/0000", "1/1/0001"),
    *(
        "1970-01-01T00:00:00Z",
        "1970-01-01 08:00:00+08:00",
        "0",
        "0.0",
        0,
        "(null)",
        "[]",
        "{}",
        {},
        "（無）",
        "...",
        "/",
        "TBD",
    ),
    *("未提供", "日期不詳", "N.A.", "\u200b"),
]


@pytest.mark.parametrize("value", FIRST_OF_MAY, ids=repr)
def test_a_day_is_read_however_it_is_written(value: Any) -> None:
    assert read_date(value).iso == "2024-05-01"


@pytest.mark.fault
@pytest.mark.parametrize(
    "value",
    [
        *("2024-05-01 星期四", "2024年5月1日（週一）", "113/5/1 (二)", "民國113年5月1日 星期日", "20240501(四)"),
        *("Thu, 01 May 2024 09:00:00 +0800", "Thursday, May 1, 2024", "Tue 13/5/2024", "2024-122 Sunday"),
    ],
)
def test_a_weekday_that_contradicts_its_date_is_counted_and_the_numbers_hold(value: str) -> None:
    reading = read_date(value)
    assert reading.form == CONTRADICTED
    assert reading.iso == ("2024-05-13" if value.startswith("Tue") else "2024-05-01")


@pytest.mark.parametrize(
    "value",
    [
        # The weekday of where it was written, which is not always Taiwan's.
        *("Tue, 30 Apr 2024 20:00:00 GMT", "Tue, 30 Apr 24 20:00:00 GMT", "Tuesday, 30-Apr-24 20:00:00 GMT"),
        *("2024-04-30 (二) 20:00 UTC", "Wed, 30 Apr 2024 20:00:00 GMT"),
    ],
)
def test_a_weekday_may_be_that_of_another_time_zone(value: str) -> None:
    reading = read_date(value)
    assert reading.iso == "2024-05-01"
    assert reading.form != CONTRADICTED


# An address differs from worker to worker.
@pytest.mark.parametrize("value", NO_DATE, ids=lambda value: repr(value).partition(" at ")[0][:40])
def test_what_names_no_day_is_not_understood(value: Any) -> None:
    assert read_date(value) == read_date("昨天")
    assert read_date(value).form == UNKNOWN


@pytest.mark.parametrize(
    "value", [None, "", " \u3000", "NULL", "N/A", "nan", float("nan"), "-", "無", "\\N", *ZERO_DATES]
)
def test_an_empty_cell_is_no_date_but_no_fault_either(value: Any) -> None:
    assert read_date(value).form == ABSENT


def test_the_pandas_value_for_no_time_is_no_date() -> None:
    import pandas as pd

    assert read_date(pd.NaT).form == ABSENT
    assert read_date(pd.Timestamp("2024-05-01T17:00:00.000000001Z")).iso == "2024-05-02"


@pytest.mark.parametrize(
    ("value", "day"),
    [
        # Past midnight in Taiwan, or not yet.
        ("2024-04-30T22:30:00Z", "2024-05-01"),
        ("2024-05-01T00:30:00+09:00", "2024-04-30"),
        (dt.datetime(2024, 4, 30, 22, 30, tzinfo=dt.UTC), "2024-05-01"),
        (1714516200, "2024-05-01"),
        ("Tue, 30 Apr 2024 17:00:00 GMT", "2024-05-01"),
        ("Tue, 30 Apr 2024 20:00:00 EDT", "2024-05-01"),
        ("4/30/2024 17:00Z", "2024-05-01"),
        ("2024/4/30 下午 5:00 GMT", "2024-05-01"),
        ("民國113年4月30日 下午5時30分 UTC+0", "2024-05-01"),
        ("2024-04-30 24:00", "2024-05-01"),
        # Zones by the name of a place, with its summer, and by their names on Windows and in Chinese.
        ("2024-04-30 20:00 America/New_York", "2024-05-01"),
        ("2024-12-31 16:30 Europe/London", "2025-01-01"),
        ("2024-06-30 16:30 Europe/London", "2024-06-30"),
        ("2024-07-01 00:30 Asia/Tokyo", "2024-06-30"),
        ("2024-04-30 20:00 Eastern Daylight Time", "2024-05-01"),
        ("2024-05-01 10:00 Taipei Standard Time", "2024-05-01"),
        ("2024/4/30 下午8:00 (美東時間)", "2024-05-01"),
        ("2024/5/1 00:30 日本時間", "2024-04-30"),
        ("2024/5/1 00:30 台北時間", "2024-05-01"),
        ("2024/5/1 00:30 發布時間", "2024-05-01"),
        # CST is Taiwan's own time here, not Chicago's.
        ("Tue, 30 Apr 2024 23:30:00 CST", "2024-04-30"),
        # Without a zone a day is what is written.
        ("2024-05-01 23:59", "2024-05-01"),
        ("May 1, 2024 12:30 AM", "2024-05-01"),
    ],
)
def test_the_day_is_that_of_taipei(value: Any, day: str) -> None:
    assert read_date(value).iso == day


@pytest.mark.parametrize(
    ("value", "form", "day"),
    [
        ("99年5月1日", ROC, "2010-05-01"),
        ("24年5月1日", YEAR_FIRST, "2024-05-01"),
        ("民國3年5月1日", ROC, "1914-05-01"),
        ("中華民國元年1月1日", ROC, "1912-01-01"),
        ("0990501", ROC, "2010-05-01"),
        ("民國990501", ROC, "2010-05-01"),
        ("0991231103000", ROC, "2010-12-31"),
        ("民國元年元旦", ROC, "1912-01-01"),
        ("中華民國 元 年 1 月 1 日", ROC, "1912-01-01"),
        ("民前1年10月10日", ROC, "1911-10-10"),
        ("民國前一年十月十日", ROC, "1911-10-10"),
        ("113年元旦", ROC, "2024-01-01"),
        ("13/5/2024", DAY_FIRST, "2024-05-13"),
        ("5/13/2024 9:00:00 AM", MONTH_FIRST, "2024-05-13"),
        ("13052024", DAY_FIRST, "2024-05-13"),
        ("31/12/99", DAY_FIRST, "1999-12-31"),
        ("1896-06-17", YEAR_FIRST, "1896-06-17"),
    ],
)
def test_a_value_that_leaves_no_choice_is_read_alone(value: str, form: str, day: str) -> None:
    assert (read_date(value).form, read_date(value).iso) == (form, day)


@pytest.mark.parametrize(
    "value",
    [
        "5/1/2024",
        "01.05.2024",
        "5-1-2024 10:00",
        "05012024",
        "24/05/01",
        "99/5/1",
        "240501",
        "01-May-24",
        990501,
        "1130501103000",
    ],
)
def test_a_value_with_two_readings_is_not_guessed(value: Any) -> None:
    reading = read_date(value)
    assert (reading.form, reading.day) == (AMBIGUOUS, None)
    assert len(set(reading.choices.values())) > 1


def days_of(values: Iterable[Any], order: Any = "auto") -> list[str | None]:
    """Return the days of a column as ``prepare`` would settle them."""
    readings = [read_date(value) for value in values]
    counts = OrderCounts()
    for reading in readings:
        counts.note(reading)
    orders = {shape: decision.order for shape, decision in decide_orders(counts, order).items()}
    chosen = [reading.day or reading.choices.get(orders.get(reading.shape, "")) for reading in readings]
    return [day.isoformat() if day else None for day in chosen]


MAY = [f"2024-05-{day:02}" for day in range(1, 13)]


@pytest.mark.parametrize(
    ("values", "days"),
    [
        (["5/1/2024", "13/5/2024"], ["2024-01-05", "2024-05-13"]),
        (["5/1/2024", "5/13/2024"], ["2024-05-01", "2024-05-13"]),
        (["5/1/24", "5/13/2024"], ["2024-05-01", "2024-05-13"]),
        (["5/1/2024", "Wed 5/8/2024"], ["2024-05-01", "2024-05-08"]),
        # Both orders are proven, so that neither holds for the column.
        (["5/1/2024", "5/13/2024", "13/5/2024"], [None, "2024-05-13", "2024-05-13"]),
        (["3/4/2024"], [None]),
        (["3/4/2024", "5/5/2024"], [None, "2024-05-05"]),
        # Nonsense decides nothing.
        (["5/1/2024", "45/13/2024"], [None, None]),
        ([f"5/{day}/2024 9:00:00 AM" for day in range(1, 13)], MAY),
        ([f"{day}/5/2024" for day in range(1, 13)], MAY),
        ([f"24/05/{day:02}" for day in range(1, 13)], MAY),
        ([f"{day:02}-May-24" for day in range(1, 13)], MAY),
        (["99/05/01", "100/05/02"], ["2010-05-01", "2011-05-02"]),
        # Years of the Republic down to the second, or milliseconds of 2005.
        ([f"113050{day}103000" for day in range(1, 10)], MAY[:9]),
        (["1130501103000", "1130502"], ["2024-05-01", "2024-05-02"]),
        (["1130501103000", "1130599103000"], ["2005-10-28", "2005-10-29"]),
        (["99/05/01", "99/05/02"], [None, None]),
        (["99/05/01", "2000-05-02"], [None, "2000-05-02"]),
    ],
)
def test_a_whole_column_decides_which_number_is_the_month(values: list[str], days: list[str | None]) -> None:
    assert days_of(values) == days
    assert days_of(reversed(values)) == days[::-1]


def test_the_setting_decides_what_the_column_leaves_open() -> None:
    assert days_of(["3/4/2024"], "month-first") == ["2024-03-04"]
    assert days_of(["3/4/2024"], "day-first") == ["2024-04-03"]
    assert days_of(["99/05/01"], "roc") == ["2010-05-01"]
    assert days_of(["99/05/01"], "year-first") == ["1999-05-01"]
    # It does not bend what is certain.
    assert days_of(["13/4/2024", "2024-05-01"], "month-first") == ["2024-04-13", "2024-05-01"]


@given(st.lists(st.dates(dt.date(1950, 1, 1), dt.date(2068, 12, 31)), min_size=1, max_size=40), st.booleans())
def test_a_column_is_never_read_against_the_order_it_is_written_in(days: list[dt.date], month_first: bool) -> None:
    """Unless the spread decides, which is told, every day is read as it was meant or is left."""
    numbers = [(day.month, day.day) if month_first else (day.day, day.month) for day in days]
    values = [f"{first}/{second}/{day.year}" for (first, second), day in zip(numbers, days, strict=True)]
    counts = OrderCounts()
    for value in values:
        counts.note(read_date(value))
    decisions = decide_orders(counts, "auto")
    if any(decision.reason == "spread" for decision in decisions.values()):
        return
    read = days_of(values)
    assert all(found in (None, meant.isoformat()) for found, meant in zip(read, days, strict=True))


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=20)
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["$date", "a"]), inner, max_size=2),
    max_leaves=5,
)
pieces = st.sampled_from(
    [
        *"0123456789/-.: 年月日時分民國零〇一二三十百廿元TZ+,()APM",
        *(
            "113",
            "2024",
            "5",
            "12",
            "31",
            "May",
            "Sep ",
            "上午",
            "下午",
            "星期三",
            "GMT",
            "CST",
            "更新",
            "W18",
            "２",
            "²",
            "٣",
        ),
    ]
)


@given(junk | st.lists(pieces, max_size=14).map("".join))
@settings(max_examples=1500)
def test_no_value_breaks_the_reading_of_dates(value: Any) -> None:
    reading = read_date(value)
    assert reading.form in FORMS
    assert (reading.day is None) == (reading.form in {ABSENT, UNKNOWN, AMBIGUOUS})
    assert reading.day is None or 1800 <= reading.day.year <= 2100
    assert reading == read_date(value)


@given(st.dates(dt.date(1912, 1, 1), dt.date(2100, 12, 31)))
def test_every_day_of_the_republic_comes_back_from_its_spellings(day: dt.date) -> None:
    roc = day.year - 1911
    written = [
        f"民國{roc}年{day.month}月{day.day}日",
        f"中華民國 {roc:03} 年 {day.month:02} 月 {day.day:02} 日",
        f"{roc:03}{day.month:02}{day.day:02}",
        f"{day:%Y%m%d}",
        f"{day:%Y/%m/%d} 上午 09:05",
        f"{day:%a, %d %b %Y %H:%M:%S} +0800",
        f"{day:%G-W%V-%u}",
    ]
    assert {read_date(text).day for text in written} == {day}


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    """Prepare articles with the given dates; returns the directory with the results."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106 - a token of a vocabulary
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    def prepare_dates(dates: Iterable[Any], **options: Any) -> tuple[Path, dict[str, Any]]:
        rows = [article(number, date=date) for number, date in enumerate(dates)]
        source = write_jsonl(tmp_path / "news.jsonl", rows)
        directory = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        results = prepare(DataSettings(source=str(source), **options), tmp_path / "tokenizer.json", directory)
        return directory, results.as_json()

    return prepare_dates


def written_days(directory: Path) -> list[str | None]:
    rows = (example for split in ("train", "val", "test") for example in load_split(directory, split))
    return sorted((row.date for row in rows), key=str)


def test_a_column_with_the_month_first_reaches_the_splits_with_its_days(run: Prepare) -> None:
    directory, results = run([f"5/{day}/2024 9:00:00 AM" for day in range(1, 13)], split="time")
    assert written_days(directory) == MAY
    assert results["undated"] == 0
    assert {row.date for row in load_split(directory, "test")} == {"2024-05-12"}
    (order,) = results["dates"]["orders"]
    assert (order["order"], order["reason"]) == (MONTH_FIRST, "spread")
    assert "are read month first, because only so the days change" in results["notes"][0]
    assert "--data.date-order" in (directory / "data.md").read_text(encoding="utf-8")


def test_a_day_that_the_column_decided_stands_in_copies_too(run: Prepare) -> None:
    values = [f"{day % 28 + 1}/{day % 12 + 1}/2024" for day in range(40)]
    forwards, results = run(values, balance=True)
    assert results["undated"] == 0
    assert None not in written_days(forwards)
    assert any(example.id.endswith("#2") for example in load_split(forwards, "train"))


@pytest.mark.parametrize("split", ["random", "time"])
def test_what_is_not_understood_is_counted_with_a_sample_in_every_split_mode(run: Prepare, split: str) -> None:
    dates = [*MAY, "昨天", "113/13/45", "3/4/2024", None]
    directory, results = run(dates, split=split)
    counts = {form["form"]: form["articles"] for form in results["dates"]["forms"]}
    assert counts == {YEAR_FIRST: 12, UNKNOWN: 2, AMBIGUOUS: 1, ABSENT: 1}
    assert results["undated"] == 4
    unknown, ambiguous, absent = results["notes"]
    assert unknown in {
        f"2 dates not understood, counted as none, such as {sample!r}" for sample in ("昨天", "113/13/45")
    }
    assert ambiguous.startswith("1 date with two readings, counted as none, such as '3/4/2024'; say --data.date-order")
    assert absent == "1 article without a date"
    card = (directory / "data.md").read_text(encoding="utf-8")
    assert "| not understood | 2 |" in card
    assert "昨天" in card
    assert json.loads((directory / "data.json").read_text(encoding="utf-8"))["dates"] == results["dates"]


@pytest.mark.fault
def test_weekdays_of_other_days_are_said(run: Prepare) -> None:
    days = [dt.date(2024, 5, 1) + dt.timedelta(days=number) for number in range(12)]
    said = ["一二三四五六日"[(day.weekday() + (number % 6 == 5)) % 7] for number, day in enumerate(days)]
    _, results = run([f"{day.isoformat()} 星期{weekday}" for day, weekday in zip(days, said, strict=True)])
    (note,) = [note for note in results["notes"] if "weekday" in note]
    assert note == "2 dates with another day's weekday, taken as the numbers say, such as '2024-05-06 星期二'"


def test_a_time_split_without_a_day_says_what_was_found(run: Prepare) -> None:
    with pytest.raises(
        DataError, match=r"no article has a date: 12 dates not understood, counted as none, such as '昨天'; name"
    ):
        run(["昨天"] * 12, split="time")
    with pytest.raises(DataError, match=r"12 dates with two readings, counted .* say --data\.date-order month-first"):
        run(["3/4/2024"] * 12, split="time")
    dates = ["3/4/2024"] * 8 + ["4/5/2024"] * 2 + ["4/6/2024"] * 2
    directory, _ = run(dates, split="time", date_order="day-first")
    assert written_days(directory) == ["2024-04-03"] * 8 + ["2024-05-04"] * 2 + ["2024-06-04"] * 2
