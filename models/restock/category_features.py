"""Cupboard: how a need stands beside the customer's visits, their other needs, and everybody's needs of its category.

The rows of a need say how often and how lately it came up. Here they are held against how often the customer comes
at all, for what comes up at every other visit is not overdue after a holiday.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import btyd, stocks
from models.base import Floats

Singles = NDArray[np.float32]

#: The days within which the shop's own windows count visits, and over which they forget them.
WINDOWS = (7, 14, 28, 56, 90)
HALF_LIVES = (14, 45, 120)
#: A need that is overdue beyond this many gaps tells no more than that.
MOST_OVERDUE = 5.0
#: Of a category fewer needs than this lean on those of all.
LEANING = 50.0
#: With fewer categories than this their figures are names in disguise, which change from month to month.
FEWEST_CATEGORIES = 40
#: What is made here: of the need and the visits, of the customer's needs, of everybody's, and of the days ahead.
OF_VISITS = (
    "share_all", "share_90d", "share_28d", *(f"share_decayed_{half}d" for half in HALF_LIVES),
    "visits_since", "visits_due", "visits_due_all", "visits_without_days",
)  # fmt: skip
OF_CUSTOMER = (
    "needs", "needs_14d", "needs_28d", "needs_last", "needs_overdue", "needs_overdue_weighed", "needs_weight_45d",
    "needs_weight_14d",
)  # fmt: skip
OF_CATEGORY = ("category_needs", "category_again", "category_14d", "category_28d", "category_gap_days")
OF_DAYS = ("quiet", "visits_ahead", "ahead_all", "ahead_90d", "ahead_45d", "ahead_120d")
NAMES = (*OF_VISITS, "gap_ratio", *OF_CUSTOMER, *OF_CATEGORY, *OF_DAYS)


@dataclass(frozen=True)
class Cupboard:
    """What is known of all customers at a moment: their rhythm of visits, and how each category fares."""

    visits: btyd.BgNbd
    usual: list[float]
    categories: Mapping[str, list[float]] = field(repr=False)

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Self:
        """From the rows of one moment, all of them: a row a customer and category."""
        customers = frame.drop_duplicates("customer_key")
        return cls(_rhythm(customers), *_fares(frame))

    def lay(self, frame: pd.DataFrame) -> Singles:
        """A row of NAMES but OF_DAYS for each row of the frame; it holds all the needs of its customers."""
        category = self._of_category(frame)
        gap = _ratio(_number(frame, "need_gap_median_days"), category[:, -1])
        parts = [_beside_visits(frame), gap[:, None], _beside_needs(frame), category]
        return np.column_stack(parts).astype(np.float32)

    def ahead(self, frame: pd.DataFrame, laid: Singles, days: Floats) -> Singles:
        """OF_DAYS for each row of the frame, asked about so many days ahead; `laid` is what `lay` made of it."""
        past = _visits(frame)
        expected = np.maximum(self.visits.expected_purchases(*past, days), 0.0)
        quiet = btyd.log_odds(self.visits.p_no_purchase(*past, days))
        shares = laid[:, [OF_VISITS.index(f"share_{name}") for name in ("all", "90d", "decayed_45d", "decayed_120d")]]
        return np.column_stack([quiet, expected, expected[:, None] * shares]).astype(np.float32)

    def numbers(self) -> dict[str, Any]:
        """All there is to keep."""
        return {"visits": asdict(self.visits), "usual": self.usual, "categories": dict(self.categories)}

    @classmethod
    def from_numbers(cls, numbers: dict[str, Any]) -> Self:
        """Read back what `numbers` gave."""
        return cls(btyd.BgNbd(**numbers["visits"]), numbers["usual"], numbers["categories"])

    def _of_category(self, frame: pd.DataFrame) -> Floats:
        names, where = np.unique(frame["category"].to_numpy(dtype=object).astype(str), return_inverse=True)
        rows = [self.categories.get(str(name), self.usual) for name in names]
        return np.array(rows, dtype=np.float64).reshape(len(names), len(OF_CATEGORY))[where]


def _rhythm(customers: pd.DataFrame) -> btyd.BgNbd:
    past = _visits(customers)
    if len(past.x) > stocks.ENOUGH:
        some = np.random.default_rng(0).choice(len(past.x), stocks.ENOUGH, replace=False)
        past = btyd.History(*(part[some] for part in past))
    return btyd.BgNbd.fit(*past)


def _visits(frame: pd.DataFrame) -> btyd.History:
    """Each row's customer's visits; where nothing is known of them, the need's own days stand in."""
    days, span, tenure = (_number(frame, name) for name in ("purchase_days", "span_days", "tenure_days"))
    own = stocks.history(frame)
    x = np.maximum(np.where(np.isfinite(days), days - 1, own.x), 0.0)
    t_x = np.maximum(np.where(np.isfinite(span), span, own.t_x), 0.0)
    return btyd.History(x, t_x, np.maximum(np.where(np.isfinite(tenure), tenure - 1, own.T), t_x))


def _beside_visits(frame: pd.DataFrame) -> Floats:
    """OF_VISITS: the share of visits at which the need came up, and how many went by since without it."""
    times, silent = _number(frame, stocks.TIMES), _number(frame, stocks.SILENT)
    share = _ratio(times, _number(frame, "purchase_days"))
    shares = [share] + [
        _ratio(_number(frame, f"need_times_{days}d"), _number(frame, f"purchase_days_{days}d")) for days in (90, 28)
    ]
    shares += [
        _ratio(_number(frame, f"need_weight_{half}d"), _number(frame, f"purchase_days_decayed_{half}d"))
        for half in HALF_LIVES
    ]
    since = _visits_since(frame, silent)
    without = silent - _number(frame, "recency_days")
    return np.column_stack([*shares, since, since * shares[-1], since * share, without])


def _visits_since(frame: pd.DataFrame, silent: Floats) -> Floats:
    """How often they came since they last bought it, read between the windows in which visits are counted."""
    ages = np.array([0, *WINDOWS], dtype=np.float64)
    counted = np.column_stack([np.zeros(len(frame)), *(_number(frame, f"purchase_days_{days}d") for days in WINDOWS)])
    within = np.clip(np.nan_to_num(silent), 0, ages[-1])
    before = np.clip(np.searchsorted(ages, within) - 1, 0, len(WINDOWS) - 1)
    row = np.arange(len(frame))
    part = (within - ages[before]) / (ages[before + 1] - ages[before])
    here = counted[row, before] + part * (counted[row, before + 1] - counted[row, before])
    return np.asarray(here + np.maximum(silent - ages[-1], 0) * _number(frame, "purchase_rate"))


def _beside_needs(frame: pd.DataFrame) -> Floats:
    """OF_CUSTOMER: how many needs a customer has, how many came up lately, and how overdue they are together."""
    customer = frame.groupby(["customer_key", "as_of"], sort=False).ngroup().to_numpy()
    need, silent = stocks.is_need(frame).astype(np.float64), _number(frame, stocks.SILENT)
    weight, lately = (
        np.where(need > 0, np.nan_to_num(_number(frame, f"need_weight_{half}d")), 0.0) for half in (45, 14)
    )
    overdue = np.where(need > 0, _number(frame, "need_overdue_ratio"), 0.0)
    overdue = np.clip(np.nan_to_num(overdue, nan=1.0), 0, MOST_OVERDUE)

    def together(values: Floats) -> Floats:
        return np.asarray(np.bincount(customer, values)[customer], np.float64)

    count = together(need)
    last = together(np.where(silent <= _number(frame, "recency_days"), need, 0.0))
    late = [together(np.where(silent <= days, need, 0.0)) for days in (14, 28)]
    heavy = together(weight)
    weighed = _ratio(together(overdue * weight), heavy)
    return np.column_stack([count, *late, last, _ratio(together(overdue), count), weighed, heavy, together(lately)])


def _fares(frame: pd.DataFrame) -> tuple[list[float], dict[str, list[float]]]:
    """OF_CATEGORY of all needs together, and of each category's, leaning on all."""
    categories, where = np.unique(frame["category"].to_numpy(dtype=object).astype(str), return_inverse=True)
    if len(categories) < FEWEST_CATEGORIES:
        return [0.0] * len(OF_CATEGORY), {}
    need, silent = stocks.is_need(frame).astype(np.float64), _number(frame, stocks.SILENT)
    gap = _number(frame, "need_gap_median_days")
    told = np.where(np.isfinite(gap), need, 0.0)

    def share(part: Floats, of: Floats) -> Floats:
        sums = [np.bincount(where, np.nan_to_num(each), len(categories)) for each in (part, of)]
        usual = sums[0].sum() / max(sums[1].sum(), 1.0)
        return np.append((sums[0] + LEANING * usual) / (sums[1] + LEANING), usual)

    everybody = np.ones(len(frame))
    columns = [
        share(need, everybody * frame["customer_key"].nunique() / max(len(frame), 1)),
        share(np.where(_number(frame, stocks.TIMES) > 1, 1.0, 0.0), everybody),
        share(np.where(silent <= 14, need, 0.0), need),
        share(np.where(silent <= 28, need, 0.0), need),
        share(gap * told, told),
    ]
    rows = np.column_stack(columns).tolist()
    return rows[-1], dict(zip(map(str, categories), rows[:-1], strict=True))


def _number(frame: pd.DataFrame, name: str) -> Floats:
    """A column as numbers; unknown where the shop has none."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    values = frame[name].to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _ratio(part: Floats, of: Floats) -> Floats:
    return np.divide(part, of, out=np.full(len(part), np.nan), where=of > 0)
