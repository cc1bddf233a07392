"""Lists of customers: who is slipping away, a page at a time, and whoever a search finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from customers import profiles, risk
from customers.orderings import Order
from customers.shop import Shop
from serving.api import at_risk
from serving.console.wording import full_name
from serving.desk import Desk
from serving.listings import AtRisk
from serving.problems import Problem
from serving.schemas import Band

ROWS = 25
#: More people than this of one name, and the search has to say more.
MOST_FOUND = 50
BANDS: dict[Band | None, tuple[str, str]] = {
    None: ("At risk", "Slipping away"),
    "high": ("High", "Slipping away"),
    "medium": ("Medium", "May slip away"),
    "lapsed": ("Lapsed", "Long gone quiet"),
    "low": ("Low", "Coming as ever"),
}


#: How a list may begin; the last only where there is evidence that a contact saves anything.
ORDERS: dict[Order, str] = {
    "probability": "Likeliest to leave first",
    "value_at_risk": "Most at stake first",
    "saved_value": "Most to save first",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One customer on the list."""

    entry: AtRisk
    name: str | None
    silent_days: int | None


@dataclass(frozen=True, slots=True)
class Tab:
    """A band to look at: what it is called, how many are in it, and where it begins."""

    title: str
    count: int
    link: str
    here: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the list, what was asked for, and how to turn to others."""

    rows: Sequence[Row]
    as_of: datetime
    band: Band | None
    min_value: str
    order: Order
    orders: dict[Order, str]
    begun: bool
    next_query: str | None
    tabs: Sequence[Tab]

    @property
    def title(self) -> str:
        """What to call those on it."""
        return BANDS[self.band][1]

    @property
    def start(self) -> str:
        """Where this list begins."""
        return next(tab.link for tab in self.tabs if tab.here)

    @property
    def valued(self) -> bool:
        """Whether it is known of anybody here what is at stake; a column that says nothing is left out."""
        return any(row.entry.value_at_risk for row in self.rows)

    @property
    def reaching(self) -> bool:
        """Whether anybody here may be written to, or offered something."""
        return any(row.entry.contactable or row.entry.suggested_offer_id for row in self.rows)


@dataclass(frozen=True, slots=True)
class Found:
    """Somebody a search has found."""

    customer_id: str
    name: str | None


def of(
    desk: Desk,
    *,
    cursor: str | None,
    band: Band | None,
    min_value: str,
    personal: bool,
    order: Order = "probability",
) -> Listing:
    """A page of those who may be slipping away, likeliest to leave first or in another of ORDERS."""
    least = _amount(min_value)
    page = at_risk.page_of(desk.shop, limit=ROWS, cursor=cursor, band=band, min_value=least, order=order)
    known = {name: title for name, title in ORDERS.items() if name != "saved_value" or page.no_saved_value is None}
    names = _names(desk.shop, [entry.customer_id for entry in page.items]) if personal else {}
    now = desk.now()
    kept = ({"min_value": min_value} if least else {}) | ({"order": order} if order != "probability" else {})
    return Listing(
        rows=[Row(entry, names.get(entry.customer_id), _days_since(entry, now, desk)) for entry in page.items],
        as_of=page.items[0].as_of if page.items else now,
        band=band,
        min_value=min_value if least else "",
        order=order,
        orders=known,
        begun=cursor is not None,
        next_query=_query(kept, band=band, cursor=page.next_cursor) if page.next_cursor else None,
        tabs=list(_tabs(desk.shop, band, least, kept)),
    )


def found(shop: Shop, asked: str, *, personal: bool) -> list[Found]:
    """Whoever goes by this id, and for those who may see such things by this e-mail, phone or name."""
    keys = list(profiles.keys_of(shop, [asked]).values()) if asked else []
    for field in ("email", "phone", "name") if personal and asked and not keys else ():
        keys = keys or _looked_up(shop, field, asked)
    ids = profiles.ids_of(shop, keys[:MOST_FOUND])
    names = _names(shop, list(ids.values())) if personal else {}
    return [Found(name, names.get(name)) for name in ids.values()]


def _tabs(shop: Shop, band: Band | None, least: float | None, kept: dict[str, str]) -> Iterator[Tab]:
    counts = at_risk.ranking(shop, None, least)["churn_band"].value_counts().to_dict()
    for name, (title, _) in BANDS.items():
        count = sum(counts.get(each, 0) for each in ([name] if name else risk.BANDS))
        yield Tab(title, count, _query(kept, band=name), name == band)


def _looked_up(shop: Shop, field: str, asked: str) -> list[int]:
    return profiles.find(shop, **{field: asked})


def _names(shop: Shop, customer_ids: Sequence[str]) -> dict[str, str]:
    """What each of these customers is called, where they have said so."""
    keys = profiles.keys_of(shop, customer_ids)
    fields = profiles.personal_of(shop, keys.values())
    called = {customer_id: full_name(fields.get(key)) for customer_id, key in keys.items()}
    return {customer_id: name for customer_id, name in called.items() if name}


def _amount(text: str) -> float | None:
    """The least value asked for; an empty field asks for nothing."""
    if not text.strip():
        return None
    try:
        amount = Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise Problem(422, "The least value is an amount of money, such as 50.")
    return float(amount)


def _days_since(entry: AtRisk, now: datetime, desk: Desk) -> int | None:
    last = entry.last_purchase_at
    return (now.astimezone(desk.shop.zone).date() - last.astimezone(desk.shop.zone).date()).days if last else None


def _query(kept: dict[str, Any], **said: str | None) -> str:
    """A link to this list with other wishes."""
    wishes: Iterable[tuple[str, Any]] = {**kept, **{name: value for name, value in said.items() if value}}.items()
    return f"/?{urlencode(list(wishes))}" if wishes else "/"
