"""Clock: what time it is in the shop, which may be the day after its last sale."""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from customers import transactions
from customers.instants import ONE_MICROSECOND
from customers.shop import Shop, ShopError


def now(shop: Shop, *, sold_until: datetime | None = None) -> datetime:
    """The shop's now, an aware UTC instant.

    A shop pinned to its last sale is at the start of the following day in its own zone;
    `sold_until` is a sale that is on its way in and may be later than the last one kept.
    """
    if shop.clock == "real":
        return datetime.now(UTC)
    if shop.clock != "last-sale":
        return moment(shop, shop.clock)
    sold = [at for at in (transactions.last_sold_at(shop), sold_until) if at is not None]
    return day_after(max(sold), shop.zone) if sold else datetime.now(UTC)


def arrival(shop: Shop, *, sold_until: datetime | None = None) -> datetime:
    """The instant at which something loaded now became known: just before now."""
    return now(shop, sold_until=sold_until) - ONE_MICROSECOND


def moment(shop: Shop, text: str) -> datetime:
    """A time as the user writes it, as a UTC instant; a bare date is the start of that day in the shop."""
    return instant(text, shop.timezone)


def instant(text: str, timezone: str) -> datetime:
    """As `moment`, for a time zone: a time without an offset is a time in that zone."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
            return day_start(date.fromisoformat(text.strip()), ZoneInfo(timezone))
        written = datetime.fromisoformat(text.strip())
        aware = written if written.tzinfo else written.replace(tzinfo=ZoneInfo(timezone))
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ShopError(f"{text!r} is not a time; write 2017-11-01 or 2017-11-01T18:30:00Z") from None


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a day in a zone, also where the clocks change at midnight."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def expected_at(as_of: datetime, days: int, zone: ZoneInfo, *, now: datetime) -> datetime:
    """The end of the day by which a purchase is as likely as not, never before now.

    `days` counts the day of `as_of` as the first: the last of them ends where as_of's day + `days` begins.
    """
    return max(day_start(as_of.astimezone(zone).date() + timedelta(days=days), zone), now)


def day_after(at: datetime, zone: ZoneInfo) -> datetime:
    """The start of the day that follows the day of `at`."""
    return day_start(at.astimezone(zone).date() + timedelta(days=1), zone)
