"""Times as whole microseconds since 1970 in UTC, which are exact in every database; parsing; starts of days."""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from customers.shop.errors import ShopError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """An aware datetime as microseconds since 1970 in UTC."""
    return (instant - EPOCH) // ONE_MICROSECOND


def from_micros(value: int) -> datetime:
    """Microseconds since 1970 as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=value)


def from_micros_or_none(value: int | None) -> datetime | None:
    """As `from_micros`; None stays None."""
    return None if value is None else from_micros(value)


def parse_instant(text: str, timezone: str) -> datetime:
    """Parse an ISO 8601 date or time to UTC; one without an offset is in `timezone`, a date is the start of its day.

    Raises ShopError for any other text.
    """
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
            return day_start(date.fromisoformat(text.strip()), ZoneInfo(timezone))
        parsed = datetime.fromisoformat(text.strip())
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=ZoneInfo(timezone))
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ShopError(f"{text!r} is not a time; write 2017-11-01 or 2017-11-01T18:30:00Z") from None


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a day in a zone, in UTC; correct also where the clocks change at midnight."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def next_day_start(at: datetime, zone: ZoneInfo) -> datetime:
    """The start of the day after the day of `at` in a zone, in UTC."""
    return day_start(at.astimezone(zone).date() + timedelta(days=1), zone)
