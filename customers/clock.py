"""The current time of a shop: the real clock, a fixed time, or the start of the day after its last sale."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from customers.ledger import transactions
from customers.shop import timestamps
from customers.shop.settings import Shop
from customers.shop.timestamps import ONE_MICROSECOND


def now(shop: Shop, *, sold_until: datetime | None = None) -> datetime:
    """The current time of the shop, timezone-aware in UTC.

    With `now = "last-sale"` it is the start of the day after the last sale, in the shop's zone. `sold_until` is the
    time of the latest sale in a load that is still being written; the later of the two counts.
    """
    if shop.clock == "real":
        return datetime.now(UTC)
    if shop.clock != "last-sale":
        return parse_time(shop, shop.clock)
    sale_times = [at for at in (transactions.last_sold_at(shop), sold_until) if at is not None]
    return timestamps.next_day_start(max(sale_times), shop.zone) if sale_times else datetime.now(UTC)


def arrival_time(shop: Shop, *, sold_until: datetime | None = None) -> datetime:
    """The time at which a record loaded now became known: one microsecond before `now`."""
    return now(shop, sold_until=sold_until) - ONE_MICROSECOND


def parse_time(shop: Shop, text: str) -> datetime:
    """Parse a time as a user writes it, to UTC; a date alone is the start of that day in the shop's zone."""
    return timestamps.parse_instant(text, shop.timezone)


def expected_purchase_at(as_of: datetime, days: int, zone: ZoneInfo, *, now: datetime) -> datetime:
    """The end of the day by which a purchase is as likely as not (the median), never before `now`.

    `days` counts the day of `as_of` as day 1: the last day ends where the day of `as_of` plus `days` begins.
    """
    return max(timestamps.day_start(as_of.astimezone(zone).date() + timedelta(days=days), zone), now)
