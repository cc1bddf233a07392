"""Who may be drifting away: the retention desk's list, likeliest to leave first, a page at a time."""

from __future__ import annotations

import base64
import csv
import io
import json
from functools import lru_cache
from typing import Annotated, Any, get_args

import pandas as pd
from fastapi import APIRouter, Header, Query
from starlette.responses import JSONResponse, Response

from customers import risk, scores
from customers.shop import Shop
from serving import desk
from serving.problems import Problem
from serving.schemas import AtRisk, AtRiskPage, Band

router = APIRouter(tags=["lists"])

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
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Customers by the probability that they stay away, as of the last night; text/csv where Accept says so."""
    page = page_of(desk.here().shop, limit=limit, cursor=cursor, band=band)
    if "text/csv" in accept:
        return _as_csv(page)
    return JSONResponse(page.model_dump(mode="json"))


def page_of(shop: Shop, *, limit: int, cursor: str | None = None, band: Band | None = None) -> AtRiskPage:
    """A page of the list, and where the next one begins."""
    run, timing = scores.newest(shop, "churn"), scores.newest(shop, "timing")
    if run is None:
        raise Problem(503, "No night has scored anybody yet; run: regulars run")
    ranking = _ranking(shop, run, timing)
    wanted = ranking[ranking["churn_band"].isin([band] if band else risk.BANDS)]
    wanted = wanted.iloc[_start(wanted, cursor) :]
    page = wanted.head(limit)
    more = len(wanted) > limit
    items = [AtRisk.model_validate({"as_of": run.as_of, **row}) for row in page.to_dict("records")]
    return AtRiskPage(items=items, next_cursor=_cursor(items[-1]) if more else None)


@lru_cache(maxsize=4)
def _ranking(shop: Shop, _churn: scores.Run, _timing: scores.Run | None) -> pd.DataFrame:
    """A night's table of everybody, likeliest to leave first; made once a night, for it reads every score."""
    frame = risk.at_risk(shop, bands=get_args(Band))
    return frame.astype(object).where(frame.notna(), None)


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
