"""Who may be drifting away: the retention desk's list, likeliest to leave first, a page at a time."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Hashable
from functools import lru_cache
from typing import Annotated, Any, get_args

import pandas as pd
from fastapi import APIRouter, Header, Query
from starlette.responses import JSONResponse, Response

from customers import clock, mirror, risk, scores
from customers.shop import Shop, ShopError
from serving import desk, spending, writeback
from serving.listings import AtRisk, AtRiskPage
from serving.problems import Problem
from serving.schemas import Band

router = APIRouter(tags=["lists"])

#: Whose words the list repeats.
MODELS = ("churn", "timing", "value", "offers")

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
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Customers by the probability that they stay away, as it now is; text/csv where Accept says so."""
    shop = desk.here().shop
    page = page_of(shop, limit=limit, cursor=cursor, band=band, segment=segment, min_value=min_value)
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
) -> AtRiskPage:
    """A page of the list, and where the next one begins."""
    wanted = ranking(shop, segment, min_value)
    wanted = wanted[wanted["churn_band"].isin([band] if band else risk.BANDS)]
    wanted = wanted.iloc[_start(wanted, cursor) :]
    page = wanted.head(limit)
    more = len(wanted) > limit
    items = [_entry(shop, row) for row in page.to_dict("records")]
    return AtRiskPage(items=items, next_cursor=_cursor(items[-1]) if more else None)


def ranking(shop: Shop, segment: str | None = None, min_value: float | None = None) -> pd.DataFrame:
    """Everybody, likeliest to leave first; made again when anything has changed that it shows."""
    frame = _ranked(shop, segment)
    return frame if min_value is None else frame[frame["value_at_risk"].astype(float) >= min_value]


def _ranked(shop: Shop, segment: str | None) -> pd.DataFrame:
    runs = tuple(scores.newest(shop, model) for model in MODELS)
    if runs[0] is None:
        raise Problem(503, "No night has scored anybody yet; run: regulars run")
    today = clock.now(shop).astimezone(shop.zone).date()
    try:
        return _ranking(shop, segment, runs, (mirror.changes(shop), writeback.news(shop), today))
    except ShopError:
        if segment is None:
            raise
        said = {"parameter": "segment", "detail": "the shop has no segment of this name; ask without one"}
        raise Problem(422, errors=[said]) from None


@lru_cache(maxsize=2)
def _ranking(shop: Shop, segment: str | None, _runs: tuple[Any, ...], _changed: tuple[Any, ...]) -> pd.DataFrame:
    frame = risk.at_risk(shop, bands=get_args(Band), segment=segment, live=True)
    return frame.astype(object).where(frame.notna(), None)


def _entry(shop: Shop, row: dict[Hashable, Any]) -> AtRisk:
    worth = row["value_at_risk"]
    money = None if worth is None else spending.text(worth, shop.currency)
    return AtRisk.model_validate({**row, "value_at_risk": money, "currency": shop.currency})


def _start(ranking: pd.DataFrame, cursor: str | None) -> int:
    """Where the page after the cursor's customer begins, also if a night has moved or dropped that one since."""
    if cursor is None:
        return 0
    try:
        probability, name = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        chances = ranking["churn_probability"].to_numpy(float)
        level = (chances == float(probability)) & (ranking["customer_id"] == str(name)).to_numpy()
        return int(level.argmax()) + 1 if level.any() else int((chances >= float(probability)).sum())
    except (ValueError, TypeError, OverflowError):
        said = {"parameter": "cursor", "detail": "take next_cursor of the page before as it is"}
        raise Problem(422, errors=[said]) from None


def _cursor(last: AtRisk) -> str:
    place = json.dumps([last.churn_probability, last.customer_id])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


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
