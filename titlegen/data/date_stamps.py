"""Days out of numbers that count from somewhere."""

from datetime import date, datetime, timedelta
from decimal import Decimal

from titlegen.data.date_reading import SERIAL, STAMP, UNKNOWN, Reading
from titlegen.data.date_zones import TAIWAN

# 1990 to 2100, in seconds.
_EPOCHS = (631_152_000, 4_102_444_800)
# .NET's ticks of 2001 to 2040 look like nanoseconds of the first months of 1990: neither is taken for the other.
_TICKS = (631_139_040 * 10**9, 643_760_352 * 10**9)
# Days since the end of 1899, as spreadsheets count them: 1980 to 2100.
_SERIAL_START, _SERIALS = date(1899, 12, 30), (29_221, 73_415)


def count_from_epoch(value: Decimal) -> Reading:
    """Return the day of a serial day of a spreadsheet, or of seconds, milli-, micro- or nanoseconds since 1970."""
    if _SERIALS[0] <= value < _SERIALS[1]:
        return Reading(SERIAL, _SERIAL_START + timedelta(days=int(value)))
    if _TICKS[0] <= value < _TICKS[1]:
        return Reading(UNKNOWN)
    scales = (value / 1000**power for power in range(4))
    seconds = next((scaled for scaled in scales if _EPOCHS[0] <= scaled < _EPOCHS[1]), None)
    return Reading(UNKNOWN) if seconds is None else Reading(STAMP, datetime.fromtimestamp(int(seconds), TAIWAN).date())
