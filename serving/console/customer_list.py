"""Customer lists of the console: the at-risk list in pages, and the matches of a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from customers.people import lookup
from customers.reports import at_risk
from customers.reports.sort_orders import SortOrder
from customers.shop.retention_costs import Band
from customers.shop.settings import Shop
from serving.api import at_risk as api_at_risk
from serving.api.schemas.records import AtRisk
from serving.console.formatting import format_full_name
from serving.http.problems import Problem
from serving.runtime import ServerRuntime

PAGE_SIZE = 25
#: A search lists at most this many matches; beyond them it has to be narrowed.
MAX_MATCHES = 50
BAND_TITLES: dict[Band | None, tuple[str, str]] = {
    None: ("At risk", "Customers at risk"),
    "high": ("High", "High churn risk"),
    "medium": ("Medium", "Medium churn risk"),
    "lapsed": ("Lapsed", "Lapsed customers"),
    "low": ("Low", "Low churn risk"),
}


#: The orders of the list; saved_value only where there is evidence that a contact saves any spend.
ORDER_TITLES: dict[SortOrder, str] = {
    "probability": "Likeliest to leave first",
    "value_at_risk": "Most at stake first",
    "saved_value": "Most to save first",
}


@dataclass(frozen=True, slots=True)
class CustomerListRow:
    """One customer of the list; `silent_days` are the days since the last purchase."""

    entry: AtRisk
    name: str | None
    silent_days: int | None


@dataclass(frozen=True, slots=True)
class BandTab:
    """A tab of one churn band: its title, number of customers, and link."""

    title: str
    count: int
    link: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class CustomerListPage:
    """One page of the list, with its filters and the links to other pages."""

    rows: Sequence[CustomerListRow]
    as_of: datetime
    band: Band | None
    min_value: str
    order: SortOrder
    orders: dict[SortOrder, str]
    has_previous: bool
    next_page_link: str | None
    tabs: Sequence[BandTab]

    @property
    def title(self) -> str:
        """The heading of the page."""
        return BAND_TITLES[self.band][1]

    @property
    def first_page_link(self) -> str:
        """The link to the first page of this list."""
        return next(tab.link for tab in self.tabs if tab.is_current)

    @property
    def has_value_at_risk(self) -> bool:
        """Whether any row has a value at risk; otherwise its column is left out."""
        return any(row.entry.value_at_risk for row in self.rows)

    @property
    def has_next_steps(self) -> bool:
        """Whether any row has a channel for a contact or a suggested offer."""
        return any(row.entry.contactable or row.entry.suggested_offer_id for row in self.rows)


@dataclass(frozen=True, slots=True)
class CustomerMatch:
    """A customer who matches a search."""

    customer_id: str
    name: str | None


def load_list_page(
    runtime: ServerRuntime,
    *,
    cursor: str | None,
    band: Band | None,
    min_value: str,
    show_personal: bool,
    order: SortOrder = "probability",
) -> CustomerListPage:
    """One page of the at-risk list, most probable churn first or in another of ORDER_TITLES."""
    min_amount = _parse_amount(min_value)
    page = api_at_risk.load_page(
        runtime.shop, limit=PAGE_SIZE, cursor=cursor, band=band, min_value=min_amount, order=order
    )
    order_titles = {
        name: title for name, title in ORDER_TITLES.items() if name != "saved_value" or page.no_saved_value is None
    }
    names = _load_names(runtime.shop, [entry.customer_id for entry in page.items]) if show_personal else {}
    now = runtime.now()
    filters = ({"min_value": min_value} if min_amount else {}) | ({"order": order} if order != "probability" else {})
    return CustomerListPage(
        rows=[
            CustomerListRow(entry, names.get(entry.customer_id), _days_since_purchase(entry, now, runtime))
            for entry in page.items
        ],
        as_of=page.items[0].as_of if page.items else now,
        band=band,
        min_value=min_value if min_amount else "",
        order=order,
        orders=order_titles,
        has_previous=cursor is not None,
        next_page_link=_build_link(filters, band=band, cursor=page.next_cursor) if page.next_cursor else None,
        tabs=list(_build_tabs(runtime.shop, band, min_amount, filters)),
    )


def find_customers(shop: Shop, search_text: str, *, show_personal: bool) -> list[CustomerMatch]:
    """Customers with this id, or if personal data may be shown with this e-mail address, phone number or name."""
    keys = list(lookup.find_keys(shop, [search_text]).values()) if search_text else []
    for field in ("email", "phone", "name") if show_personal and search_text and not keys else ():
        keys = keys or _find_by_field(shop, field, search_text)
    ids = lookup.find_ids(shop, keys[:MAX_MATCHES])
    names = _load_names(shop, list(ids.values())) if show_personal else {}
    return [CustomerMatch(name, names.get(name)) for name in ids.values()]


def _build_tabs(shop: Shop, band: Band | None, min_value: float | None, filters: dict[str, str]) -> Iterator[BandTab]:
    counts = api_at_risk.load_ranking(shop, None, min_value)["churn_band"].value_counts().to_dict()
    for name, (title, _) in BAND_TITLES.items():
        count = sum(counts.get(each, 0) for each in ([name] if name else at_risk.BANDS))
        yield BandTab(title, count, _build_link(filters, band=name), name == band)


def _find_by_field(shop: Shop, field: str, search_text: str) -> list[int]:
    return lookup.find_customers(shop, **{field: search_text})


def _load_names(shop: Shop, customer_ids: Sequence[str]) -> dict[str, str]:
    """The full names of these customers by id, where they are stored."""
    keys = lookup.find_keys(shop, customer_ids)
    fields = lookup.load_personal_fields(shop, keys.values())
    name_by_id = {customer_id: format_full_name(fields.get(key)) for customer_id, key in keys.items()}
    return {customer_id: name for customer_id, name in name_by_id.items() if name}


def _parse_amount(text: str) -> float | None:
    """The minimum value as a number; None for an empty field."""
    if not text.strip():
        return None
    try:
        amount = Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise Problem(422, "The least value is an amount of money, such as 50.")
    return float(amount)


def _days_since_purchase(entry: AtRisk, now: datetime, runtime: ServerRuntime) -> int | None:
    last_purchase_at = entry.last_purchase_at
    return (
        (now.astimezone(runtime.shop.zone).date() - last_purchase_at.astimezone(runtime.shop.zone).date()).days
        if last_purchase_at
        else None
    )


def _build_link(filters: dict[str, Any], **changes: str | None) -> str:
    """A link to this list with changed filters."""
    query: Iterable[tuple[str, Any]] = {**filters, **{name: value for name, value in changes.items() if value}}.items()
    return f"/?{urlencode(list(query))}" if query else "/"
