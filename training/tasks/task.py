"""What a task is made of, and the data that its labels come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from training.calendar import TrainingCalendar

Frame = pd.DataFrame


class Incomparable(Exception):
    """Two models cannot be compared, since they predict different things; the message gives the difference."""


def _empty_frame(**dtypes: str) -> Callable[[], Frame]:
    return lambda: pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})


_TIMESTAMP_DTYPE = "datetime64[us, UTC]"
_CATALOGUE_COLUMNS = ("category", "subcategory", "department", "brand")
_CO_PURCHASE_DTYPES = dict.fromkeys(("product_key", "other_key", "together", "visits", "followed"), "int64")
_CO_PURCHASE_DTYPES |= dict.fromkeys(("lift", "strength"), "float64")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What labels come from: the local days, what was bought and when, and which offers were redeemed.

    `churn_days` and `value_days` are horizons; `follow_up_days` is how long times to the next purchase are observed in
    evaluation. `purchases` has columns customer_key, day, spend; `baskets`, by cutoff, customer_key, product_keys.
    `products` is the catalogue, whatever its date, None where it has no value; `prices` are the prices of products, and
    `together` the co-purchases (see features.products.co_purchases).
    """

    calendar: TrainingCalendar
    purchases: Frame
    baskets: Mapping[Any, Frame]
    churn_days: int
    value_days: int = 90
    follow_up_days: int = 90
    category_days: Frame = field(
        default_factory=_empty_frame(customer_key="int64", category="object", day="datetime64[us]")
    )
    redemptions: Frame = field(
        default_factory=_empty_frame(customer_key="int64", offer_key="int64", redeemed_at=_TIMESTAMP_DTYPE)
    )
    offers: Frame = field(
        default_factory=_empty_frame(
            offer_key="int64", campaign_id="object", starts_at=_TIMESTAMP_DTYPE, ends_at=_TIMESTAMP_DTYPE
        )
    )
    products: Frame = field(
        default_factory=_empty_frame(product_key="int64", **dict.fromkeys(_CATALOGUE_COLUMNS, "object"))
    )
    prices: Frame = field(default_factory=_empty_frame(product_key="int64", price="float64", sold="float64"))
    together: Frame = field(default_factory=_empty_frame(**_CO_PURCHASE_DTYPES))


@dataclass(frozen=True, slots=True)
class Task:
    """One task: what to predict, from which features, with which learner, against which baselines.

    `holdout_days` is the length of its hold-out; `label` returns the outcomes known before a day; `evaluated_rows` is
    the mask of rows that count in evaluation; `evaluate` compares predictions with outcomes, and `primary_metric`
    decides promotion. The last baseline serves a shop with too little history. `learner_inputs` are further frames that
    only the learner gets, no baseline. `expand` is what a customer's row becomes before training: one row per category
    ("needs") or per offer ("offers"). Of more than `max_customers` customers, a random sample trains and evaluates the
    models. The rows of an `is_event_based` task have many different cutoffs, and all those from the hold-out's start on
    are evaluated. Learner and baselines are compared at `n_cutoffs` cutoffs, one window apart, before one of them is
    served. `guardrails` are minimum ratios of a metric to that of the last baseline or the champion.
    """

    name: str
    question: str
    service: str
    learner: str
    baselines: tuple[str, ...]
    primary_metric: str
    holdout_days: Callable[[TrainingData], int]
    label: Callable[[TrainingData, Frame, date], Any]
    evaluated_rows: Callable[[TrainingData, Frame, Any], np.ndarray]
    evaluate: Callable[[TrainingData, Frame, Any, Any], dict[str, float]]
    settings: Callable[[TrainingData], dict[str, Any]] = field(default=lambda training_data: {})
    learner_inputs: Callable[[TrainingData], dict[str, Frame]] = field(default=lambda training_data: {})
    expand: Literal["needs", "offers"] | None = None
    is_event_based: bool = False
    max_customers: int = 20_000
    n_cutoffs: int = 1
    guardrails: Mapping[str, float] = field(default_factory=dict, hash=False)
