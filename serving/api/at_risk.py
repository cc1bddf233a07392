"""Who may be drifting away: the retention desk's list, likeliest to leave first, a page at a time."""

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

from customers import clock, mirror, persuasion, profiles, risk, scores
from customers.orderings import ORDERS, Order
from customers.shop import Shop, ShopError
from serving import desk, spending, writeback
from serving.listings import AtRisk, AtRiskPage
from serving.problems import Problem
from serving.schemas import Band

router = APIRouter(tags=["lists"])

#: Whose words the list repeats.
MODELS = ("churn", "timing", "value", "offers", persuasion.MODEL)

#: A spreadsheet takes text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@router.get(
    "/v1/at-risk",
    response_model=AtRiskPage,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def at_risk(
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
    band: Annotated[Band | None, Query(description="One band; without it, medium and high.")] = None,
    segment: Annotated[str | None, Query(max_length=200, description="Only customers in this segment.")] = None,
    min_value: Annotated[float | None, Query(ge=0, description="Only where at least so much is at risk.")] = None,
    order: Annotated[Order, Query(description="What the list begins with most of.")] = "probability",
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Customers by the probability that they stay away, as it now is; text/csv where Accept says so."""
    shop = desk.here().shop
    page = page_of(shop, limit=limit, cursor=cursor, band=band, segment=segment, min_value=min_value, order=order)
    if "text/csv" in accept:
        return _as_csv(page)
    return JSONResponse(page.model_dump(mode="json"))


def page_of(
    shop: Shop,
    *,
    limit: int,
    cursor: str | None = None,
    band: Band | None = None,
    segment: str | None = None,
    min_value: float | None = None,
    order: Order = "probability",
) -> AtRiskPage:
    """A page of the list, and where the next one begins."""
    wanted = ranking(shop, segment, min_value, order)
    wanted = wanted[wanted["churn_band"].isin([band] if band else risk.BANDS)]
    wanted = wanted.iloc[_start(shop, wanted, order, cursor) :]
    page = wanted.head(limit)
    told = _shown(shop, tuple(page["customer_key"].tolist()), segment, order, _state(shop))
    items = [_entry(shop, row) for row in told.to_dict("records")]
    more = _cursor(page.iloc[-1], items[-1], order) if len(wanted) > limit else None
    return AtRiskPage(items=items, next_cursor=more, no_saved_value=persuasion.doubt(shop))


def ranking(
    shop: Shop, segment: str | None = None, min_value: float | None = None, order: Order = "probability"
) -> pd.DataFrame:
    """Everybody in the order of the list; made again when anything has changed that orders it."""
    frame = _ranked(shop, segment, order)
    return frame if min_value is None else frame[frame["value_at_risk"] >= min_value]


def _ranked(shop: Shop, segment: str | None, order: Order) -> pd.DataFrame:
    state = _state(shop)
    if state[0] is None:
        raise Problem(503, "No night has scored anybody yet; run: regulars run")
    try:
        return _ranking(shop, segment, order, state)
    except ShopError:
        if segment is None:
            raise
        said = {"parameter": "segment", "detail": "the shop has no segment of this name; ask without one"}
        raise Problem(422, errors=[said]) from None


def _state(shop: Shop) -> tuple[Any, ...]:
    """What the list hangs on: each model's newest night, news of customers and of the shop, and the day."""
    today = clock.now(shop).astimezone(shop.zone).date()
    runs = tuple(scores.newest(shop, model) for model in MODELS)
    return (*runs, persuasion.kept(shop), mirror.changes(shop), writeback.news(shop), today)


@lru_cache(maxsize=4)
def _ranking(shop: Shop, segment: str | None, order: Order, _state: tuple[Any, ...]) -> pd.DataFrame:
    return risk.ranked(shop, segment=segment, order=order, live=True)


@lru_cache(maxsize=64)
def _shown(
    shop: Shop, keys: tuple[int, ...], segment: str | None, order: Order, _state: tuple[Any, ...]
) -> pd.DataFrame:
    """What a page shows of its customers: of the others nothing is read but what orders them."""
    listed = _ranking(shop, segment, order, _state)
    mine = listed[listed["customer_key"].isin(keys)]
    frame = risk.told(shop, mine, live=True)
    return frame.astype(object).where(frame.notna(), None)


def _entry(shop: Shop, row: dict[Hashable, Any]) -> AtRisk:
    amounts = {name: row[name] for name in ("value_at_risk", "saved_value")}
    texts = {name: None if amount is None else spending.text(amount, shop.currency) for name, amount in amounts.items()}
    return AtRisk.model_validate({**row, **texts, "currency": shop.currency})


def _start(shop: Shop, ranking: pd.DataFrame, order: Order, cursor: str | None) -> int:
    """Where the page after the cursor's customer begins, also if a night has moved or dropped that one since."""
    if cursor is None:
        return 0
    try:
        *place, name = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        amount, chance = (-math.inf if each is None else float(each) for each in place)
        key = profiles.keys_of(shop, [str(name)]).get(str(name))
    except (ValueError, TypeError, OverflowError):
        said = {"parameter": "cursor", "detail": "take next_cursor of the page before as it is"}
        raise Problem(422, errors=[said]) from None
    amounts, chances = (ranking[column].fillna(-math.inf).to_numpy(float) for column in _columns(order))
    level = (amounts == amount) & (chances == chance)
    at = level & (ranking["customer_key"] == key).to_numpy()
    return (
        int(at.argmax()) + 1
        if at.any()
        else int(((amounts > amount) | (amounts == amount) & (chances >= chance)).sum())
    )


def _cursor(last: pd.Series, entry: AtRisk, order: Order) -> str:
    place = [None if pd.isna(last[column]) else float(last[column]) for column in _columns(order)]
    return base64.urlsafe_b64encode(json.dumps([*place, entry.customer_id]).encode()).decode().rstrip("=")


def _columns(order: Order) -> tuple[str, str]:
    return ORDERS[order], "churn_probability"


def _as_csv(page: AtRiskPage) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(AtRisk.model_fields)
    for item in page.items:
        writer.writerow(_plain(value) for value in item.model_dump(mode="json").values())
    headers = {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _plain(value: Any) -> Any:
    """A cell: lists as one text, and text that a spreadsheet would run made harmless."""
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
