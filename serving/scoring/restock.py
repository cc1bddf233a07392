"""Restocking: when a customer needs something of a category again, and how likely within how many days.

A model says three chances, within 7, 14 and 28 days. Between them, and beyond, a purchase is taken to be as likely
on one day as on the next: that is all that three numbers say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from customers.privacy import consents
from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from features.families import category_history
from models.base import Model
from models.registry.bundle import Champion
from models.restock import category_bg_nbd
from serving.runtime import FeatureCache, ServerRuntime
from serving.scoring import fallback
from serving.scoring import fallback as fallback_scoring
from serving.scoring.fallback import Floats

WINDOW_DAYS = (7, 14, 28)
#: Nothing is foretold beyond.
MAX_HORIZON_DAYS = 90
#: So many categories of a customer are kept, the likeliest first.
MAX_CATEGORIES = 50
ITEM_COLUMNS = ["customer_key", "category", "p_7d", "p_14d", "p_28d", "wait_days"]
#: What a need is a need for: on how many days it was bought, and how long ago the last and the first of them are.
EVIDENCE_COLUMNS = ["need_times", "need_recency_days", "need_first_days"]


def score_restock(
    model: Model, pairs: pd.DataFrame, *, hidden: Collection[str] = (), consenting: Collection[int] = ()
) -> pd.DataFrame:
    """What every need, a pair of customer and category, comes to, as COLUMNS and GROUNDS, the likeliest first.

    A category bought once or long ago is no need, and has no row: see models.restock.category_bg_nbd. `hidden` categories are named
    only to the customers in `sees`.
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


def has_no_items(frame: pd.DataFrame, items: pd.DataFrame) -> fallback.Flags:
    """Which customers of the frame have no need among these rows: of them no more is said than of anybody."""
    return np.asarray(~frame["customer_key"].isin(items["customer_key"]))


def rank_within(items: pd.DataFrame, within_days: int) -> pd.DataFrame:
    """The same rows with `p`, the chance within so many days, each customer's likeliest first."""
    probabilities = probability_within(items[ITEM_COLUMNS[2:5]].to_numpy(np.float64), within_days)
    ranked = items.assign(p=probabilities)
    return ranked.sort_values(["customer_key", "p", "category"], ascending=[True, False, True], kind="stable")


def probability_within(probabilities: Floats, days: int) -> Floats:
    """P(a purchase within so many days) of rows of chances within 7, 14 and 28."""
    knots, hazard = _cumulative_hazard(probabilities)
    return np.asarray(np.round(-np.expm1(-_interpolate(knots, hazard, days)), fallback.PROBABILITY_DIGITS))


def median_days(probabilities: Floats) -> Floats:
    """The day by which a purchase is as likely as not; NaN beyond what is foretold."""
    days = np.full(len(probabilities), np.nan)
    knots, hazard = _cumulative_hazard(probabilities)
    for day in range(MAX_HORIZON_DAYS, 0, -1):
        days[_interpolate(knots, hazard, day) >= np.log(2.0)] = day
    return days


def _cumulative_hazard(probabilities: Floats) -> tuple[tuple[int, ...], Floats]:
    """The risk gathered until each knot; beyond the last it goes on gathering as it did before."""
    cumulative = -np.log1p(-np.clip(probabilities, 0.0, 1.0 - 1e-9))
    cumulative = np.column_stack([np.zeros(len(probabilities)), cumulative])
    slope = (cumulative[:, -1] - cumulative[:, -2]) / (WINDOW_DAYS[-1] - WINDOW_DAYS[-2])
    last = cumulative[:, -1] + slope * (MAX_HORIZON_DAYS - WINDOW_DAYS[-1])
    return (0, *WINDOW_DAYS, MAX_HORIZON_DAYS), np.column_stack([cumulative, last])


def _interpolate(knots: tuple[int, ...], hazard: Floats, day: int) -> Floats:
    after = next(place for place, knot in enumerate(knots) if knot >= day)
    share = (day - knots[after - 1]) / (knots[after] - knots[after - 1])
    return np.asarray(hazard[:, after - 1] + share * (hazard[:, after] - hazard[:, after - 1]))


def _clean_probabilities(probabilities: Floats) -> Floats:
    """Chances that never fall, in the digits that are shown; a row that holds no number stays so."""
    rising = np.maximum.accumulate(np.clip(probabilities, 0.0, 1.0), axis=1)
    return np.asarray(np.round(rising, fallback.PROBABILITY_DIGITS))


def encode_items(items: pd.DataFrame) -> dict[int, list[list[Any]]]:
    """What is kept of each customer: [category, p7, p14, p28, wait_days or None], likeliest first."""
    items_by_key: dict[int, list[list[Any]]] = {}
    for key, category, p7, p14, p28, days in zip(*(items[name].tolist() for name in ITEM_COLUMNS), strict=True):
        items_by_key.setdefault(key, []).append([category, p7, p14, p28, None if days != days else int(days)])
    return items_by_key


def encode_restock(frame: pd.DataFrame, items_frame: pd.DataFrame, is_fallback: fallback.Flags) -> Iterator[ScoreRow]:
    """A row a customer: the highest chance within 14 days, and {"items", "fallback"}.

    An item is [category, p within 7, 14, 28 days, median wait in days or null], likeliest first.
    """
    items_by_key = encode_items(items_frame)
    for key, flag in zip(frame["customer_key"].tolist(), is_fallback.tolist(), strict=True):
        items = items_by_key.get(key, [])
        best = max((item[2] for item in items), default=None)
        yield key, best, score_details.dump_detail({"items": items, "fallback": flag})


@dataclass(frozen=True)
class RestockPrediction:
    """What runs out for some customers, as `restocking.needs` gives it, and whose figures there were."""

    frame: pd.DataFrame
    items: pd.DataFrame
    fallback: fallback_scoring.Flags


def predict_restock(
    runtime: ServerRuntime, champion: Champion, keys: Sequence[int], feature_cache: FeatureCache | None = None
) -> RestockPrediction:
    """What runs out for each."""
    frame = runtime.load_features(champion, keys, feature_cache)
    hidden = runtime.get_inventory().sensitive_categories
    consenting = consents.allowed_customers(runtime.shop, keys, "profiling_sensitive") if hidden else set()
    rows = score_restock(champion.model, category_history.explode_lists(frame), hidden=hidden, consenting=consenting)
    has_features = fallback_scoring.has_features(frame)
    is_fallback = ~has_features | fallback_scoring.uses_fallback(champion) | has_no_items(frame, rows)
    runtime.store_scores(champion, frame[has_features], encode_restock(frame, rows, is_fallback))
    return RestockPrediction(frame, rows, is_fallback)
