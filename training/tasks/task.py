"""Questions: what one is made of, and the world in which it is asked and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from training import labels

Frame = pd.DataFrame


class Incomparable(Exception):
    """Two models that answer different questions; the message says how they differ."""


def _none_of(**kinds: str) -> Callable[[], Frame]:
    return lambda: pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


_AT = "datetime64[us, UTC]"
_WORDS = ("category", "subcategory", "department", "brand")
_PAIRS = dict.fromkeys(("product_key", "other_key", "together", "visits", "followed"), "int64")
_PAIRS |= dict.fromkeys(("lift", "strength"), "float64")


@dataclass(frozen=True, slots=True)
class World:
    """What labels are cut from: the shop's days, what was bought and when, and which offers were redeemed.

    `churn_days` and `value_days` are horizons; `wait_days` is how long waiting times are watched when they are judged.

    `products` is what the catalogue says of each product, whenever it said so; None for what it does not say.
    `prices` is what each goes for, and `together` what is bought beside and after what (see features.together).
    """

    calendar: labels.Calendar
    purchases: Frame
    baskets: Mapping[Any, Frame]
    churn_days: int
    value_days: int = 90
    wait_days: int = 90
    category_days: Frame = field(
        default_factory=_none_of(customer_key="int64", category="object", day="datetime64[us]")
    )
    redemptions: Frame = field(default_factory=_none_of(customer_key="int64", offer_key="int64", redeemed_at=_AT))
    offers: Frame = field(default_factory=_none_of(offer_key="int64", campaign_id="object", starts_at=_AT, ends_at=_AT))
    products: Frame = field(default_factory=_none_of(product_key="int64", **dict.fromkeys(_WORDS, "object")))
    prices: Frame = field(default_factory=_none_of(product_key="int64", price="float64", sold="float64"))
    together: Frame = field(default_factory=_none_of(**_PAIRS))


@dataclass(frozen=True, slots=True)
class Plan:
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
    decisive: str
    window: Callable[[World], int]
    label: Callable[[World, Frame, date], Any]
    take: Callable[[World, Frame, Any], np.ndarray]
    judge: Callable[[World, Frame, Any, Any], dict[str, float]]
    settings: Callable[[World], dict[str, Any]] = field(default=lambda world: {})
    told: Callable[[World], dict[str, Frame]] = field(default=lambda world: {})
    expand: Literal["needs", "offers"] | None = None
    spread: bool = False
    cutoffs: int = 1
    floor: Mapping[str, float] = field(default_factory=dict, hash=False)
