"""FAT's times: a date of seven years' bits from 1980, a time of two seconds' steps, hundredths for the creation.

FAT keeps local time without saying which; it is taken for UTC, as a host whose clock runs on UTC does.
"""

from __future__ import annotations

SECOND = 1_000_000_000
_DAY = 86400
#: days from the epoch to 1980-01-01, and the last day that a date can say: 2107-12-31
_FIRST = 3652
_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_before(year: int) -> int:
    """Days from 1980-01-01 to the first of a year since."""
    earlier = year - 1
    leaps = earlier // 4 - earlier // 100 + earlier // 400
    return (year - 1980) * 365 + leaps - (1979 // 4 - 1979 // 100 + 1979 // 400)


def decode(date: int, time: int = 0, hundredths: int = 0) -> int:
    """Nanoseconds since the epoch. Months and days of zero, which DOS never wrote, count as the first."""
    year = 1980 + (date >> 9)
    month = min(max(1, date >> 5 & 15), 12)
    days = _FIRST + _days_before(year) + _BEFORE[month - 1] + max(1, date & 31) - 1
    days += month > 2 and _leap(year)
    seconds = days * _DAY + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2
    return seconds * SECOND + hundredths * 10_000_000


def encode(when: int) -> tuple[int, int, int]:
    """(date, time, hundredths) of nanoseconds since the epoch; before 1980 and after 2107 the nearest possible."""
    days, rest = divmod(when // SECOND, _DAY)
    days -= _FIRST
    if days < 0:
        return 0x21, 0, 0
    year = 1980 + days // 366
    while year < 2108 and _days_before(year + 1) <= days:
        year += 1
    if year > 2107:
        return 0xFF9F, 0xBF7D, 199
    days -= _days_before(year)
    month = 12
    while days < _BEFORE[month - 1] + (month > 2 and _leap(year)):
        month -= 1
    day = days - _BEFORE[month - 1] - (month > 2 and _leap(year)) + 1
    hour, rest = divmod(rest, 3600)
    minute, second = divmod(rest, 60)
    hundredths = second % 2 * 100 + when % SECOND // 10_000_000
    return (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2, hundredths
