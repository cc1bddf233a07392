"""Instants: a moment as a whole number of microseconds since 1970 in UTC, exact and the same in every database."""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from customers.shop.errors import ShopError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970 in UTC of an aware datetime."""
    return (instant - EPOCH) // ONE_MICROSECOND


def from_micros(value: int) -> datetime:
    """The aware UTC datetime of `micros`."""
    return EPOCH + timedelta(microseconds=value)


def from_micros_or_none(value: int | None) -> datetime | None:
    """As `from_micros`; nothing stays nothing."""
    return None if value is None else from_micros(value)


def parse_instant(text: str, timezone: str) -> datetime:
    """As `moment`, for a time zone: a time without an offset is a time in that zone."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
            return day_start(date.fromisoformat(text.strip()), ZoneInfo(timezone))
        parsed = datetime.fromisoformat(text.strip())
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=ZoneInfo(timezone))
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ShopError(f"{text!r} is not a time; write 2017-11-01 or 2017-11-01T18:30:00Z") from None


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a day in a zone, also where the clocks change at midnight."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def next_day_start(at: datetime, zone: ZoneInfo) -> datetime:
    """The start of the day that follows the day of `at`."""
    return day_start(at.astimezone(zone).date() + timedelta(days=1), zone)
