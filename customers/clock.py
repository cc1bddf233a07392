"""Clock: what time it is in the shop, which may be the day after its last sale."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from customers.ledger import transactions
from customers.shop import timestamps
from customers.shop.settings import Shop
from customers.shop.timestamps import ONE_MICROSECOND


def now(shop: Shop, *, sold_until: datetime | None = None) -> datetime:
    """The shop's now, an aware UTC instant.

    A shop pinned to its last sale is at the start of the following day in its own zone;
    `sold_until` is a sale that is on its way in and may be later than the last one kept.
    """
    if shop.clock == "real":
        return datetime.now(UTC)
    if shop.clock != "last-sale":
        return parse_time(shop, shop.clock)
    sale_times = [at for at in (transactions.last_sold_at(shop), sold_until) if at is not None]
    return timestamps.next_day_start(max(sale_times), shop.zone) if sale_times else datetime.now(UTC)


def arrival_time(shop: Shop, *, sold_until: datetime | None = None) -> datetime:
    """The instant at which something loaded now became known: just before now."""
    return now(shop, sold_until=sold_until) - ONE_MICROSECOND


def parse_time(shop: Shop, text: str) -> datetime:
    """A time as the user writes it, as a UTC instant; a bare date is the start of that day in the shop."""
    return timestamps.parse_instant(text, shop.timezone)


def expected_purchase_at(as_of: datetime, days: int, zone: ZoneInfo, *, now: datetime) -> datetime:
    """The end of the day by which a purchase is as likely as not, never before now.

    `days` counts the day of `as_of` as the first: the last of them ends where as_of's day + `days` begins.
    """
    return max(timestamps.day_start(as_of.astimezone(zone).date() + timedelta(days=days), zone), now)
