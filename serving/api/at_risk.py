"""The at-risk list: customers by churn probability or by value at risk, in pages, as JSON or CSV."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Hashable
from functools import lru_cache
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Header, Query
from starlette.responses import JSONResponse, Response

from customers import clock
from customers.database import change_counters
from customers.marketing import stored_offers
from customers.people import lookup
from customers.reports import at_risk as reports_at_risk
from customers.reports.sort_orders import SORT_COLUMNS, SortOrder
from customers.scores import score_store, uplift_result
from customers.shop.errors import ShopError
from customers.shop.retention_costs import Band
from customers.shop.settings import Shop
from serving import runtime
from serving.api.schemas.records import AtRisk, AtRiskPage
from serving.http.problems import Problem
from serving.ingestion import score_writer
from serving.scoring import value, write_back

router = APIRouter(tags=["lists"])

#: The models whose scores are in the list.
SCORED_MODELS = ("churn", "timing", "value", "offers", uplift_result.MODEL)

#: A spreadsheet reads text that begins with one of these as a formula.
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")


@router.get(
    "/v1/at-risk",
    response_model=AtRiskPage,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def at_risk(
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
    band: Annotated[Band | None, Query(description="Only this churn band; without it, medium and high.")] = None,
    segment: Annotated[str | None, Query(max_length=200, description="Only customers in this segment.")] = None,
    min_value: Annotated[
        float | None, Query(ge=0, description="Only customers with at least this value at risk.")
    ] = None,
    order: Annotated[SortOrder, Query(description="What the list is sorted by, largest first.")] = "probability",
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Customers by their current churn probability, or in another order; as text/csv if Accept asks for it."""
    shop = runtime.get_runtime().shop
    page = load_page(shop, limit=limit, cursor=cursor, band=band, segment=segment, min_value=min_value, order=order)
    if "text/csv" in accept:
        return _to_csv(page)
    return JSONResponse(page.model_dump(mode="json"))


def load_page(
    shop: Shop,
    *,
    limit: int,
    cursor: str | None = None,
    band: Band | None = None,
    segment: str | None = None,
    min_value: float | None = None,
    order: SortOrder = "probability",
) -> AtRiskPage:
    """One page of the list, with the cursor of the next page."""
    ranked = load_ranking(shop, segment, min_value, order)
    ranked = ranked[ranked["churn_band"].isin([band] if band else reports_at_risk.BANDS)]
    ranked = ranked.iloc[_start_index(shop, ranked, order, cursor) :]
    page = ranked.head(limit)
    details = _cached_details(shop, tuple(page["customer_key"].tolist()), segment, order, _cache_version(shop))
    items = [_to_entry(shop, row) for row in details.to_dict("records")]
    next_cursor = _encode_cursor(page.iloc[-1], items[-1], order) if len(ranked) > limit else None
    return AtRiskPage(items=items, next_cursor=next_cursor, no_saved_value=uplift_result.unavailable_reason(shop))


def load_ranking(
    shop: Shop, segment: str | None = None, min_value: float | None = None, order: SortOrder = "probability"
) -> pd.DataFrame:
    """All scored customers in the order of the list, a row per customer; cached until scores or data change.

    Columns: customer_key, as_of, churn_probability, churn_band, value_at_risk, saved_value.
    """
    frame = _load_full_ranking(shop, segment, order)
    return frame if min_value is None else frame[frame["value_at_risk"] >= min_value]


def _load_full_ranking(shop: Shop, segment: str | None, order: SortOrder) -> pd.DataFrame:
    score_writer.get_writer().wait()
    version = _cache_version(shop)
    if version[0] is None:
        raise Problem(503, "No customer has been scored yet; run: regulars run")
    try:
        return _cached_ranking(shop, segment, order, version)
    except ShopError:
        if segment is None:
            raise
        error = {"parameter": "segment", "detail": "the shop has no segment of this name; ask without one"}
        raise Problem(422, errors=[error]) from None


def _cache_version(shop: Shop) -> tuple[Any, ...]:
    """Cache key of the list: each model's newest run, change counters, begun and ended offers, and the local date."""
    today = clock.now(shop).astimezone(shop.zone).date()
    run_times = tuple(score_store.newest_run(shop, model) for model in SCORED_MODELS)
    return (
        *run_times,
        uplift_result.load_result(shop),
        change_counters.count_changes(shop),
        write_back.read_change_marker(shop),
        stored_offers.count_begun_and_ended(shop),
        today,
    )


@lru_cache(maxsize=4)
def _cached_ranking(shop: Shop, segment: str | None, order: SortOrder, _version: tuple[Any, ...]) -> pd.DataFrame:
    return reports_at_risk.rank_customers(shop, segment=segment, order=order, include_online=True)


@lru_cache(maxsize=64)
def _cached_details(
    shop: Shop, keys: tuple[int, ...], segment: str | None, order: SortOrder, _version: tuple[Any, ...]
) -> pd.DataFrame:
    """The details of one page's customers; of all other customers only the sort columns are read."""
    ranked = _cached_ranking(shop, segment, order, _version)
    page_rows = ranked[ranked["customer_key"].isin(keys)]
    frame = reports_at_risk.add_details(shop, page_rows, include_online=True)
    return frame.astype(object).where(frame.notna(), None)


def _to_entry(shop: Shop, row: dict[Hashable, Any]) -> AtRisk:
    amounts = {name: row[name] for name in ("value_at_risk", "saved_value")}
    texts = {
        name: None if amount is None else value.format_amount(amount, shop.currency) for name, amount in amounts.items()
    }
    return AtRisk.model_validate({**row, **texts, "currency": shop.currency})


def _start_index(shop: Shop, ranking: pd.DataFrame, order: SortOrder, cursor: str | None) -> int:
    """Position of the row after the cursor's customer, also if a nightly run has moved or removed them since."""
    if cursor is None:
        return 0
    try:
        *sort_values, customer_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        amount, probability = (-math.inf if each is None else float(each) for each in sort_values)
        key = lookup.find_keys(shop, [str(customer_id)]).get(str(customer_id))
    except (ValueError, TypeError, OverflowError):
        error = {"parameter": "cursor", "detail": "use the next_cursor of the previous page unchanged"}
        raise Problem(422, errors=[error]) from None
    amounts, probabilities = (ranking[column].fillna(-math.inf).to_numpy(float) for column in _sort_columns(order))
    is_tied = (amounts == amount) & (probabilities == probability)
    is_cursor_row = is_tied & (ranking["customer_key"] == key).to_numpy()
    return (
        int(is_cursor_row.argmax()) + 1
        if is_cursor_row.any()
        else int(((amounts > amount) | (amounts == amount) & (probabilities >= probability)).sum())
    )


def _encode_cursor(last: pd.Series, entry: AtRisk, order: SortOrder) -> str:
    sort_values = [None if pd.isna(last[column]) else float(last[column]) for column in _sort_columns(order)]
    return base64.urlsafe_b64encode(json.dumps([*sort_values, entry.customer_id]).encode()).decode().rstrip("=")


def _sort_columns(order: SortOrder) -> tuple[str, str]:
    return SORT_COLUMNS[order], "churn_probability"


def _to_csv(page: AtRiskPage) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(AtRisk.model_fields)
    for item in page.items:
        writer.writerow(_to_csv_cell(value) for value in item.model_dump(mode="json").values())
    headers = {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _to_csv_cell(value: Any) -> Any:
    """A CSV cell: lists are joined, and text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_PREFIXES) else value
