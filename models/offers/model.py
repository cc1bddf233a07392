"""P(redemption) of an offer, from the customer's purchases of the products it covers and from earlier responses."""

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
#: The trees' features: more of a 1 never makes a redemption less likely, more of a -1 never makes it likelier. With a
#: thousand redemptions to train on, these constraints are worth more than further columns or leaves.
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
LIGHTGBM_PARAMS: dict[str, Any] = {
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
#: Ensembles that are averaged, and at most how many offers not redeemed each is fitted to, beside all redeemed ones.
N_ENSEMBLES, MAX_NEGATIVES = 5, 40_000
MIN_OFFERS, MIN_TO_CALIBRATE = 50, 30
#: Affinity to products that the customer never bought, in purchase days.
AFFINITY_FLOOR = 1e-3
#: Redemption rate where there is no data: one offer in a hundred.
DEFAULT_RATE = 0.01


@dataclass(frozen=True)
class OfferModel:
    """Averaged ensembles of small boosted trees with monotone constraints: more affinity never lowers P(redemption)."""

    columns: list[str]
    ensembles: tuple[boosted_trees.BoostedTrees, ...]
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.Series[Any] | Floats, *, seed: int = 0, **overrides: Any) -> Self:
        """Fit to offers with a known outcome: all that were redeemed, and a sample of the rest.

        frame: a row per customer, time at which an offer reached the customer, and offer (`offer_key`), with the
        affinity features (columns of MONOTONE_CONSTRAINTS). label: (n,), 1 = redeemed, 0 = not, NaN = not known yet.
        `overrides` replace LightGBM's settings. Raises InsufficientData where fewer than MIN_OFFERS were redeemed, or
        were not.
        """
        outcome = np.asarray(label, dtype=np.float64)
        redeemed, not_redeemed = np.flatnonzero(outcome == 1), np.flatnonzero(outcome == 0)
        if min(len(redeemed), len(not_redeemed)) < MIN_OFFERS:
            raise InsufficientData(
                f"{len(redeemed)} offers were redeemed and {len(not_redeemed)} passed over; "
                f"{MIN_OFFERS} of each are needed: load received and redeemed interactions of more campaigns"
            )
        columns = [name for name in MONOTONE_CONSTRAINTS if name in frame]
        ensembles = []
        for number in range(seed * N_ENSEMBLES, (seed + 1) * N_ENSEMBLES):
            rows, weight = _sample(redeemed, not_redeemed, number)
            params = boosted_trees.lightgbm_params(
                LIGHTGBM_PARAMS
                | {"monotone_constraints": [MONOTONE_CONSTRAINTS[name] for name in columns]}
                | overrides,
                objective="binary",
                seed=number,
            )
            design = matrix(frame.iloc[rows], columns)
            ensembles.append(
                boosted_trees.fit_trees(boosted_trees.TrainingRows(design, outcome[rows], weight=weight), params, TREES)
            )
        return cls(columns, tuple(ensembles), len(redeemed) / (len(redeemed) + len(not_redeemed)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(this customer redeems this offer): (n,)."""
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
        """Read what `save` wrote."""
        saved = read_json(folder / MODEL_FILE)
        ensembles = tuple(boosted_trees.BoostedTrees.load(folder, _file(number)) for number in range(saved["groves"]))
        return cls(saved["columns"], ensembles, saved["base"])


def log_strength(frame: pd.DataFrame) -> Floats:
    """Log of affinity times response rate: (n,), from columns affinity_84d, response_rate and popularity.

    Popularity is added to affinity, so that it decides between products that the customer never bought.
    """
    require_columns(frame, [AFFINITY, RATE, POPULARITY])
    affinity, rate, popularity = (
        np.maximum(np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan)), 0.0)
        for name in (AFFINITY, RATE, POPULARITY)
    )
    return np.log(affinity + popularity + AFFINITY_FLOOR) + np.log(np.maximum(rate, AFFINITY_FLOOR))


def _sample(redeemed: NDArray[np.intp], not_redeemed: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], Floats]:
    """Rows of all redeemed offers and of some that were not, each of which is weighted for those left out."""
    sampled = np.random.default_rng(seed).choice(not_redeemed, min(MAX_NEGATIVES, len(not_redeemed)), replace=False)
    rows = np.concatenate([redeemed, sampled])
    weight = np.concatenate([np.ones(len(redeemed)), np.full(len(sampled), len(not_redeemed) / len(sampled))])
    order = np.argsort(rows)
    return rows[order], weight[order]


def _file(number: int) -> str:
    return f"grove{number}.txt"
