"""Restocking: when a customer needs something of a category again, and how likely within how many days.

A model says three chances, within 7, 14 and 28 days. Between them, and beyond, a purchase is taken to be as likely
on one day as on the next: that is all that three numbers say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from models import stocks
from models.base import Model
from serving import scorer
from serving.scorer import Floats

WITHIN = (7, 14, 28)
#: Nothing is foretold beyond.
FARTHEST_DAYS = 90
#: So many categories of a customer are kept, the likeliest first.
DEEP = 50
COLUMNS = ["customer_key", "category", "p_7d", "p_14d", "p_28d", "wait_days"]
#: What a need is a need for: on how many days it was bought, and how long ago the last and the first of them are.
GROUNDS = ["need_times", "need_recency_days", "need_first_days"]


def needs(
    model: Model, pairs: pd.DataFrame, *, hidden: Collection[str] = (), sees: Collection[int] = ()
) -> pd.DataFrame:
    """What every need, a pair of customer and category, comes to, as COLUMNS and GROUNDS, the likeliest first.

    A category bought once or long ago is no need, and has no row: see models.stocks. `hidden` categories are named
    only to the customers in `sees`.
    """
    shown = ~pairs["category"].isin(list(hidden)) | pairs["customer_key"].isin(list(sees))
    pairs = pairs[shown & stocks.is_need(pairs)].reset_index(drop=True)
    chances = np.empty((0, len(WITHIN)))
    if len(pairs):
        chances = _sound(np.asarray(model.score(pairs), np.float64).reshape(len(pairs), len(WITHIN)))
    columns = dict(zip(COLUMNS[2:5], chances.T, strict=True)) | {"wait_days": wait(chances)}
    rows = pairs.assign(**columns).reindex(columns=[*COLUMNS, *GROUNDS])
    rows = rows.take(np.flatnonzero(np.isfinite(chances).all(axis=1)))
    rows = rows.sort_values(["customer_key", "p_14d", "category"], ascending=[True, False, True], kind="stable")
    return rows.groupby("customer_key", sort=False).head(DEEP).reset_index(drop=True)


def needless(frame: pd.DataFrame, rows: pd.DataFrame) -> scorer.Flags:
    """Which customers of the frame have no need among these rows: of them no more is said than of anybody."""
    return np.asarray(~frame["customer_key"].isin(rows["customer_key"]))


def likeliest(rows: pd.DataFrame, within_days: int) -> pd.DataFrame:
    """The same rows with `p`, the chance within so many days, each customer's likeliest first."""
    chances = within(rows[COLUMNS[2:5]].to_numpy(np.float64), within_days)
    ranked = rows.assign(p=chances)
    return ranked.sort_values(["customer_key", "p", "category"], ascending=[True, False, True], kind="stable")


def within(chances: Floats, days: int) -> Floats:
    """P(a purchase within so many days) of rows of chances within 7, 14 and 28."""
    knots, risks = _risks(chances)
    return np.asarray(np.round(-np.expm1(-_at(knots, risks, days)), scorer.DIGITS))


def wait(chances: Floats) -> Floats:
    """The day by which a purchase is as likely as not; NaN beyond what is foretold."""
    waited = np.full(len(chances), np.nan)
    knots, risks = _risks(chances)
    for day in range(FARTHEST_DAYS, 0, -1):
        waited[_at(knots, risks, day) >= np.log(2.0)] = day
    return waited


def _risks(chances: Floats) -> tuple[tuple[int, ...], Floats]:
    """The risk gathered until each knot; beyond the last it goes on gathering as it did before."""
    gathered = -np.log1p(-np.clip(chances, 0.0, 1.0 - 1e-9))
    gathered = np.column_stack([np.zeros(len(chances)), gathered])
    steepness = (gathered[:, -1] - gathered[:, -2]) / (WITHIN[-1] - WITHIN[-2])
    last = gathered[:, -1] + steepness * (FARTHEST_DAYS - WITHIN[-1])
    return (0, *WITHIN, FARTHEST_DAYS), np.column_stack([gathered, last])


def _at(knots: tuple[int, ...], risks: Floats, day: int) -> Floats:
    after = next(place for place, knot in enumerate(knots) if knot >= day)
    share = (day - knots[after - 1]) / (knots[after] - knots[after - 1])
    return np.asarray(risks[:, after - 1] + share * (risks[:, after] - risks[:, after - 1]))


def _sound(chances: Floats) -> Floats:
    """Chances that never fall, in the digits that are shown; a row that holds no number stays so."""
    rising = np.maximum.accumulate(np.clip(chances, 0.0, 1.0), axis=1)
    return np.asarray(np.round(rising, scorer.DIGITS))


def entries(rows: pd.DataFrame) -> dict[int, list[list[Any]]]:
    """What is kept of each customer: [category, p7, p14, p28, wait_days or None], likeliest first."""
    kept: dict[int, list[list[Any]]] = {}
    for key, category, p7, p14, p28, days in zip(*(rows[name].tolist() for name in COLUMNS), strict=True):
        kept.setdefault(key, []).append([category, p7, p14, p28, None if days != days else int(days)])
    return kept
