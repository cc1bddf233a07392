"""Offers: which of them a customer will redeem, from what they buy of what it is for and how they respond."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from models import baselines, btyd, trees
from models.base import FILE, Floats, TooLittle, matrix, read_json, require, write_json

AFFINITY, RATE, POPULARITY = "affinity_84d", "response_rate", "popularity"
#: What the trees look at: more of a 1 never makes a redemption less likely, more of a -1 never makes it likelier. With
#: a thousand redemptions to learn from, what everybody knows beforehand is worth more than further columns or leaves.
SENSE = {
    "affinity_84d": 1,
    "affinity_120d": 1,
    "affinity_share": 1,
    "affinity_lead": 1,
    "times": 1,
    "last_days": -1,
    "products_share": 1,
    "popularity": 1,
    "price": 0,
    "discount": 1,
    "response_rate": 1,
    "redeemed_rate": 1,
    "category_sold": 1,
    "subcategory_sold": 1,
    "line_sold": 1,
    "shelf_weight_28d": 1,
    "rivals": 0,
}
#: Chosen on Complete Journey's campaigns before those that are reported (May to October 2017).
GROWTH: dict[str, Any] = {
    "num_leaves": 5,
    "learning_rate": 0.08,
    "min_data_in_leaf": 20,
    "lambda_l2": 5.0,
    "feature_fraction_bynode": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 127,
}
TREES = 60
#: Groves that are averaged, and how many offers passed over each of them sees beside all the redeemed ones.
GROVES, PASSED_OVER = 5, 40_000
FEWEST, FEWEST_TO_CALIBRATE = 50, 30
#: What an offer of products that somebody never bought is worth to them, in days of purchase.
STRANGE = 1e-3
#: What is redeemed where nobody knows better: one offer in a hundred.
USUAL = 0.01


@dataclass(frozen=True)
class AffinityRate:
    """Affinity to the offer's products times how often the customer redeems; ranks well, and needs no outcomes."""

    offset: float
    slope: float
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.Series[Any] | Floats, *, seed: int = 0) -> Self:
        """Draw the line from strength to probability; with few redemptions, simply in proportion to it."""
        taken = np.asarray(label, dtype=np.float64)
        known = np.isfinite(taken)
        strength, redeemed = _log_strength(frame)[known], float(taken[known].sum())
        base = (redeemed + 1) / (known.sum() + 1 / USUAL)
        if min(redeemed, known.sum() - redeemed) < FEWEST_TO_CALIBRATE:
            mean = float(np.log(np.mean(np.exp(strength)))) if known.any() else float(np.log(USUAL))
            return cls(float(logit(base)) - mean, 1.0, float(base))
        offset, slope = baselines.logistic(strength[:, None], taken[known])
        return cls(float(offset), max(float(slope), 0.0), float(base))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(this customer redeems this offer), a row each."""
        chance: Floats = expit(self.offset + self.slope * _log_strength(frame))
        return np.clip(chance, btyd.CERTAIN, 1 - btyd.CERTAIN)

    def typical(self) -> float:
        """The share of offers that are redeemed."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the line."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the line back."""
        return cls(**read_json(folder / FILE))


@dataclass(frozen=True)
class Offers:
    """A few small trees that may only say what makes sense: more affinity never makes an offer less welcome."""

    columns: list[str]
    groves: tuple[trees.Trees, ...]
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.Series[Any] | Floats, *, seed: int = 0, **growth: Any) -> Self:
        """Learn from offers whose fate is known: all that were redeemed and a sample of the rest.

        frame: a row for a customer, the moment at which an offer reached them, and the offer (`offer_key`), with
        its appeal. label: 1 = redeemed, 0 = not, NaN = nobody can say yet. `growth` overrides LightGBM's settings.
        """
        taken = np.asarray(label, dtype=np.float64)
        redeemed, passed = np.flatnonzero(taken == 1), np.flatnonzero(taken == 0)
        if min(len(redeemed), len(passed)) < FEWEST:
            raise TooLittle(
                f"{len(redeemed)} offers were redeemed and {len(passed)} passed over; {FEWEST} of each are needed: "
                "load received and redeemed interactions of more campaigns"
            )
        columns = [name for name in SENSE if name in frame]
        groves = []
        for number in range(seed * GROVES, (seed + 1) * GROVES):
            rows, weight = _sample(redeemed, passed, number)
            how = trees.settings(
                GROWTH | {"monotone_constraints": [SENSE[name] for name in columns]} | growth,
                objective="binary", seed=number,
            )  # fmt: skip
            design = matrix(frame.iloc[rows], columns)
            groves.append(trees.grow(trees.Rows(design, taken[rows], weight=weight), how, TREES))
        return cls(columns, tuple(groves), len(redeemed) / (len(redeemed) + len(passed)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(this customer redeems this offer), a row each."""
        design = matrix(frame, self.columns)
        chance: Floats = expit(np.mean([grove.added(design) for grove in self.groves], axis=0))
        return np.clip(chance, btyd.CERTAIN, 1 - btyd.CERTAIN)

    def typical(self) -> float:
        """The share of offers that are redeemed."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        for number, grove in enumerate(self.groves):
            grove.save(folder, _file(number))
        write_json(folder / FILE, {"columns": self.columns, "base": self.base, "groves": len(self.groves)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / FILE)
        groves = tuple(trees.Trees.load(folder, _file(number)) for number in range(saved["groves"]))
        return cls(saved["columns"], groves, saved["base"])


def _log_strength(frame: pd.DataFrame) -> Floats:
    """Affinity times rate on a scale of logarithms; what sells anyway decides between products never bought."""
    require(frame, [AFFINITY, RATE, POPULARITY])
    affinity, rate, popularity = (
        np.maximum(np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan)), 0.0)
        for name in (AFFINITY, RATE, POPULARITY)
    )
    return np.log(affinity + popularity + STRANGE) + np.log(np.maximum(rate, STRANGE))


def _sample(redeemed: NDArray[np.intp], passed: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], Floats]:
    """All that were redeemed and some that were not, each of which stands for all that were left out."""
    some = np.random.default_rng(seed).choice(passed, min(PASSED_OVER, len(passed)), replace=False)
    rows = np.concatenate([redeemed, some])
    weight = np.concatenate([np.ones(len(redeemed)), np.full(len(some), len(passed) / len(some))])
    order = np.argsort(rows)
    return rows[order], weight[order]


def _file(number: int) -> str:
    return f"grove{number}.txt"
