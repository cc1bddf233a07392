"""Restock scores: P(purchase of a replenishment category) within so many days; online and at night.

A model gives three probabilities, within 7, 14 and 28 days. Between them, and beyond, the hazard is taken as constant:
three numbers say no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from models.base import Model
from models.restock import category_bg_nbd
from serving.scoring import fallback
from serving.scoring.fallback import Flags, Floats, Prediction
from serving.scoring.inputs import ScoringInputs

WINDOW_DAYS = (7, 14, 28)
#: No prediction beyond.
MAX_HORIZON_DAYS = 90
#: Categories per customer, the likeliest first.
MAX_CATEGORIES = 50
ITEM_COLUMNS = [*score_details.RESTOCK_COLUMNS]
#: Evidence of a category: number of purchase days, and days since the last and since the first of them.
EVIDENCE_COLUMNS = ["need_times", "need_recency_days", "need_first_days"]


@dataclass(frozen=True)
class RestockPrediction(Prediction):
    """Replenishment categories of the customers: a row per customer and category, columns as `score_restock`."""

    items: pd.DataFrame

    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""
        return score_details.encode_restock(self.frame["customer_key"].tolist(), self.items, fallback=self.fallback)


def predict_restock(inputs: ScoringInputs) -> RestockPrediction:
    """Replenishment categories of the customers of the inputs; sensitive ones only of customers who consent."""
    from features.families import category_history  # imported here: Ibis is slow to load

    frame, hidden = inputs.load_features("restock"), inputs.inventory.sensitive_categories
    items = score_restock(
        inputs.get_model("restock"),
        category_history.explode_lists(frame),
        hidden=hidden,
        consenting=inputs.consenting_customers(hidden),
    )
    is_scored = fallback.has_features(frame)
    is_fallback = ~is_scored | inputs.uses_fallback("restock") | has_no_items(frame, items)
    return RestockPrediction(frame, is_scored, is_fallback, items)


def score_restock(
    model: Model, pairs: pd.DataFrame, *, hidden: Collection[str] = (), consenting: Collection[int] = ()
) -> pd.DataFrame:
    """A row per customer and replenishment category, likeliest first: columns ITEM_COLUMNS and EVIDENCE_COLUMNS.

    pairs: a row per customer and category, as `category_history.explode_lists` gives it. A category bought once or
    long ago is no replenishment category and has no row, see models.restock.category_bg_nbd. `hidden` categories are
    left out except for the customers in `consenting`.
    """
    is_shown = ~pairs["category"].isin(list(hidden)) | pairs["customer_key"].isin(list(consenting))
    pairs = pairs[is_shown & category_bg_nbd.is_replenishment(pairs)].reset_index(drop=True)
    probabilities = np.empty((0, len(WINDOW_DAYS)))
    if len(pairs):
        probabilities = _clean_probabilities(
            np.asarray(model.score(pairs), np.float64).reshape(len(pairs), len(WINDOW_DAYS))
        )
    columns = dict(zip(ITEM_COLUMNS[2:5], probabilities.T, strict=True)) | {"wait_days": median_days(probabilities)}
    items = pairs.assign(**columns).reindex(columns=[*ITEM_COLUMNS, *EVIDENCE_COLUMNS])
    items = items.take(np.flatnonzero(np.isfinite(probabilities).all(axis=1)))
    items = items.sort_values(["customer_key", "p_14d", "category"], ascending=[True, False, True], kind="stable")
    return items.groupby("customer_key", sort=False).head(MAX_CATEGORIES).reset_index(drop=True)


def has_no_items(frame: pd.DataFrame, items: pd.DataFrame) -> Flags:
    """Flags (n_customers,) of the customers of the frame without a row in items, by column customer_key."""
    return np.asarray(~frame["customer_key"].isin(items["customer_key"]))


def rank_within(items: pd.DataFrame, within_days: int) -> pd.DataFrame:
    """The same rows with column p, P(purchase within so many days), per customer the likeliest first."""
    probabilities = probability_within(items[ITEM_COLUMNS[2:5]].to_numpy(np.float64), within_days)
    ranked = items.assign(p=probabilities)
    return ranked.sort_values(["customer_key", "p", "category"], ascending=[True, False, True], kind="stable")


def probability_within(probabilities: Floats, days: int) -> Floats:
    """P(purchase within so many days), (n,), from probabilities (n, 3) within 7, 14 and 28 days."""
    knots, hazard = _cumulative_hazard(probabilities)
    return np.asarray(np.round(-np.expm1(-_interpolate(knots, hazard, days)), fallback.PROBABILITY_DIGITS))


def median_days(probabilities: Floats) -> Floats:
    """Median days to the purchase, (n,), from probabilities (n, 3); NaN beyond MAX_HORIZON_DAYS."""
    days = np.full(len(probabilities), np.nan)
    knots, hazard = _cumulative_hazard(probabilities)
    for day in range(MAX_HORIZON_DAYS, 0, -1):
        days[_interpolate(knots, hazard, day) >= np.log(2.0)] = day
    return days


def _cumulative_hazard(probabilities: Floats) -> tuple[tuple[int, ...], Floats]:
    """Cumulative hazard at each knot; beyond the last window the hazard continues as in it."""
    cumulative = -np.log1p(-np.clip(probabilities, 0.0, 1.0 - 1e-9))
    cumulative = np.column_stack([np.zeros(len(probabilities)), cumulative])
    slope = (cumulative[:, -1] - cumulative[:, -2]) / (WINDOW_DAYS[-1] - WINDOW_DAYS[-2])
    last = cumulative[:, -1] + slope * (MAX_HORIZON_DAYS - WINDOW_DAYS[-1])
    return (0, *WINDOW_DAYS, MAX_HORIZON_DAYS), np.column_stack([cumulative, last])


def _interpolate(knots: tuple[int, ...], hazard: Floats, day: int) -> Floats:
    after = next(position for position, knot in enumerate(knots) if knot >= day)
    share = (day - knots[after - 1]) / (knots[after] - knots[after - 1])
    return np.asarray(hazard[:, after - 1] + share * (hazard[:, after] - hazard[:, after - 1]))


def _clean_probabilities(probabilities: Floats) -> Floats:
    """Non-decreasing probabilities, rounded; a row with NaN keeps it."""
    rising = np.maximum.accumulate(np.clip(probabilities, 0.0, 1.0), axis=1)
    return np.asarray(np.round(rising, fallback.PROBABILITY_DIGITS))
