"""Questions: what one is made of, and the world in which it is asked and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from training import calendar

Frame = pd.DataFrame


class Incomparable(Exception):
    """Two models that answer different questions; the message says how they differ."""


def _empty_frame(**dtypes: str) -> Callable[[], Frame]:
    return lambda: pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})


_TIMESTAMP_DTYPE = "datetime64[us, UTC]"
_CATALOGUE_COLUMNS = ("category", "subcategory", "department", "brand")
_CO_PURCHASE_DTYPES = dict.fromkeys(("product_key", "other_key", "together", "visits", "followed"), "int64")
_CO_PURCHASE_DTYPES |= dict.fromkeys(("lift", "strength"), "float64")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What labels are cut from: the shop's days, what was bought and when, and which offers were redeemed.

    `churn_days` and `value_days` are horizons; `wait_days` is how long waiting times are watched when they are judged.

    `products` is what the catalogue says of each product, whenever it said so; None for what it does not say.
    `prices` is what each goes for, and `together` what is bought beside and after what (see features.products.co_purchases).
    """

    calendar: calendar.TrainingCalendar
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
    """One question: what to foretell, from which features, with which learner, against which baselines.

    `window` gives the days of its holdout; `label` cuts the outcomes known before a day; `take` says which rows
    count when it is judged; `judge` compares answers with outcomes, and `decisive` is the figure that
    promotes. The last baseline is the one that a shop with too little history is served. `told` is what the learner,
    and no baseline, hears of the shop besides its rows. `expand` says what a customer's row becomes before training:
    rows of one category each ("needs") or of one offer each ("offers"). The rows of a `spread` plan lie at many
    moments, and all those from the holdout's start on are judged. At so many `cutoffs`, a window apart, learner and
    baselines are compared before one of them is served.
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
    n_cutoffs: int = 1
    guardrails: Mapping[str, float] = field(default_factory=dict, hash=False)
