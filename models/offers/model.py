"""Offers: which of them a customer will redeem, from what they buy of what it is for and how they respond."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from models.base import MODEL_FILE, Floats, InsufficientData, matrix, read_json, require_columns, write_json
from models.btyd import bg_nbd
from models.estimators import boosted_trees

AFFINITY, RATE, POPULARITY = "affinity_84d", "response_rate", "popularity"
#: What the trees look at: more of a 1 never makes a redemption less likely, more of a -1 never makes it likelier. With
#: a thousand redemptions to learn from, what everybody knows beforehand is worth more than further columns or leaves.
MONOTONE_CONSTRAINTS = {
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
N_ENSEMBLES, MAX_NEGATIVES = 5, 40_000
MIN_OFFERS, MIN_TO_CALIBRATE = 50, 30
#: What an offer of products that somebody never bought is worth to them, in days of purchase.
AFFINITY_FLOOR = 1e-3
#: What is redeemed where nobody knows better: one offer in a hundred.
DEFAULT_RATE = 0.01


@dataclass(frozen=True)
class OfferModel:
    """A few small trees that may only say what makes sense: more affinity never makes an offer less welcome."""

    columns: list[str]
    ensembles: tuple[boosted_trees.BoostedTrees, ...]
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.Series[Any] | Floats, *, seed: int = 0, **growth: Any) -> Self:
        """Learn from offers whose fate is known: all that were redeemed and a sample of the rest.

        frame: a row for a customer, the moment at which an offer reached them, and the offer (`offer_key`), with
        its appeal. label: 1 = redeemed, 0 = not, NaN = nobody can say yet. `growth` overrides LightGBM's settings.
        """
        outcome = np.asarray(label, dtype=np.float64)
        redeemed, not_redeemed = np.flatnonzero(outcome == 1), np.flatnonzero(outcome == 0)
        if min(len(redeemed), len(not_redeemed)) < MIN_OFFERS:
            raise InsufficientData(
                f"{len(redeemed)} offers were redeemed and {len(not_redeemed)} passed over; {MIN_OFFERS} of each are needed: "
                "load received and redeemed interactions of more campaigns"
            )
        columns = [name for name in MONOTONE_CONSTRAINTS if name in frame]
        ensembles = []
        for number in range(seed * N_ENSEMBLES, (seed + 1) * N_ENSEMBLES):
            rows, weight = _sample(redeemed, not_redeemed, number)
            params = boosted_trees.lightgbm_params(
                GROWTH | {"monotone_constraints": [MONOTONE_CONSTRAINTS[name] for name in columns]} | growth,
                objective="binary", seed=number,
            )  # fmt: skip
            design = matrix(frame.iloc[rows], columns)
            ensembles.append(
                boosted_trees.fit_trees(boosted_trees.TrainingRows(design, outcome[rows], weight=weight), params, TREES)
            )
        return cls(columns, tuple(ensembles), len(redeemed) / (len(redeemed) + len(not_redeemed)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(this customer redeems this offer), a row each."""
        design = matrix(frame, self.columns)
        probability: Floats = expit(np.mean([ensemble.raw_score(design) for ensemble in self.ensembles], axis=0))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def population_average(self) -> float:
        """The share of offers that are redeemed."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        for number, ensemble in enumerate(self.ensembles):
            ensemble.save(folder, _file(number))
        write_json(folder / MODEL_FILE, {"columns": self.columns, "base": self.base, "groves": len(self.ensembles)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / MODEL_FILE)
        ensembles = tuple(boosted_trees.BoostedTrees.load(folder, _file(number)) for number in range(saved["groves"]))
        return cls(saved["columns"], ensembles, saved["base"])


def log_strength(frame: pd.DataFrame) -> Floats:
    """Affinity times rate on a scale of logarithms; what sells anyway decides between products never bought."""
    require_columns(frame, [AFFINITY, RATE, POPULARITY])
    affinity, rate, popularity = (
        np.maximum(np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan)), 0.0)
        for name in (AFFINITY, RATE, POPULARITY)
    )
    return np.log(affinity + popularity + AFFINITY_FLOOR) + np.log(np.maximum(rate, AFFINITY_FLOOR))


def _sample(redeemed: NDArray[np.intp], not_redeemed: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], Floats]:
    """All that were redeemed and some that were not, each of which stands for all that were left out."""
    sampled = np.random.default_rng(seed).choice(not_redeemed, min(MAX_NEGATIVES, len(not_redeemed)), replace=False)
    rows = np.concatenate([redeemed, sampled])
    weight = np.concatenate([np.ones(len(redeemed)), np.full(len(sampled), len(not_redeemed) / len(sampled))])
    order = np.argsort(rows)
    return rows[order], weight[order]


def _file(number: int) -> str:
    return f"grove{number}.txt"
