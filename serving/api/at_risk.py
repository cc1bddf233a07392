"""Who may be drifting away: the retention desk's list, likeliest to leave first, a page at a time."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import APIRouter, Header, Query
from starlette.responses import JSONResponse, Response

from customers import clock, profiles, scores
from customers.shop import Shop
from serving import answers, desk
from serving.desk import Desk
from serving.problems import Problem
from serving.schemas import AtRisk, AtRiskPage, Band

router = APIRouter(tags=["lists"])

#: Who is called at risk where no band is asked for: those likelier than most to leave, and not gone already.
AT_RISK = ("medium", "high")
#: A spreadsheet takes text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@router.get(
    "/v1/at-risk",
    response_model=AtRiskPage,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def at_risk(
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    band: Annotated[Band | None, Query(description="One band; without it, medium and high.")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Customers by the probability that they stay away, as of the last night; text/csv where Accept says so."""
    page = page_of(desk.here(), limit=limit, cursor=cursor, band=band)
    if "text/csv" in accept:
        return _as_csv(page)
    return JSONResponse(page.model_dump(mode="json"))


def page_of(here: Desk, *, limit: int, cursor: str | None = None, band: Band | None = None) -> AtRiskPage:
    """A page of the list, and where the next one begins."""
    run = scores.newest(here.shop, "churn")
    if run is None:
        raise Problem(503, "No night has scored anybody yet; run: regulars run")
    ranking = _ranking(here.shop, run.run_id, run.finished_at)
    wanted = ranking[ranking["band"].isin([band] if band else AT_RISK) & _after(ranking, cursor)]
    page = wanted.head(limit)
    more = len(wanted) > limit
    return AtRiskPage(items=_items(here, run, page), next_cursor=_cursor(page.iloc[-1]) if more else None)


@lru_cache(maxsize=4)
def _ranking(shop: Shop, run_id: int, _finished_at: object) -> pd.DataFrame:
    """A night's churn, likeliest first: customer_key, probability, band, reasons. One a run; nights are few."""
    frame = scores.current(shop, "churn")
    detail = [json.loads(text) for text in frame["detail"]]
    ranking = pd.DataFrame(
        {
            "customer_key": frame["customer_key"],
            "probability": frame["value"],
            "band": [said["band"] for said in detail],
            "reasons": [said["reasons"] for said in detail],
        }
    )
    return ranking.sort_values(["probability", "customer_key"], ascending=[False, True], ignore_index=True)


def _after(ranking: pd.DataFrame, cursor: str | None) -> np.ndarray:
    """Which customers come after the last one of the page before."""
    if cursor is None:
        return np.ones(len(ranking), dtype=bool)
    try:
        probability, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        probability, key = float(probability), int(key)
    except (ValueError, TypeError, OverflowError):
        said = {"parameter": "cursor", "detail": "take next_cursor of the page before as it is"}
        raise Problem(422, errors=[said]) from None
    below, level = ranking["probability"] < probability, ranking["probability"] == probability
    return (below | (level & (ranking["customer_key"] > key))).to_numpy()


def _cursor(last: pd.Series) -> str:
    place = json.dumps([float(last["probability"]), int(last["customer_key"])])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _items(here: Desk, run: scores.Run, page: pd.DataFrame) -> list[AtRisk]:
    keys = page["customer_key"].tolist()
    names = profiles.ids_of(here.shop, keys)
    figures = here.figures(here.champion("churn"), keys).iloc[:-1].set_index("customer_key")
    waits = _waits(here.shop)
    return [
        AtRisk(
            customer_id=names[row.customer_key],
            as_of=run.as_of,
            churn_probability=row.probability,
            churn_band=row.band,
            reasons=row.reasons,
            expected_next_purchase_at=_expected_at(here, waits, row.customer_key),
            **_silence(here, figures.loc[row.customer_key]),
        )
        for row in page.itertuples()
    ]


def _silence(here: Desk, figures: pd.Series) -> dict[str, Any]:
    """The day of the last purchase, and how many days longer than usual the silence since has been."""
    as_of, silent = answers.moment(figures["as_of"]), figures["recency_days"]
    if as_of is None or pd.isna(silent):
        return {"last_purchase_at": None, "days_overdue": None}
    day = as_of.astimezone(here.shop.zone).date() - timedelta(days=int(silent))
    late = silent - figures["gap_median_days"]
    return {
        "last_purchase_at": clock.day_start(day, here.shop.zone),
        "days_overdue": None if pd.isna(late) else max(0, round(late)),
    }


def _waits(shop: Shop) -> dict[int, tuple[Any, float, str]]:
    """The night's median waits: as_of, days, and what else was said."""
    run = scores.newest(shop, "timing")
    return _waits_of(shop, run.run_id, run.finished_at) if run else {}


@lru_cache(maxsize=4)
def _waits_of(shop: Shop, run_id: int, _finished_at: object) -> dict[int, tuple[Any, float, str]]:
    frame = scores.current(shop, "timing")
    columns = zip(frame["customer_key"].tolist(), frame["value"].tolist(), frame["detail"].tolist(), strict=True)
    return {key: (frame.attrs["as_of"], days, detail) for key, days, detail in columns}


def _expected_at(here: Desk, waits: dict[int, tuple[Any, float, str]], key: int) -> Any:
    if key not in waits:
        return None
    as_of, days, detail = waits[key]
    if json.loads(detail)["days"]["p50"] is None:
        return None
    return answers.expected_at(as_of, int(days), here.shop.zone, here.now())


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
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = "; ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
