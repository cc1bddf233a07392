"""The replenishment model: P(a customer buys a category again within 7, 14 and 28 days)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from models.base import (
    MODEL_FILE,
    Floats,
    InsufficientData,
    feature_columns,
    latest_rows,
    matrix,
    read_json,
    require_columns,
    write_json,
)
from models.btyd import bg_nbd
from models.estimators import boosted_trees
from models.restock import category_bg_nbd
from models.restock.category_features import FEATURE_NAMES, CategoryFeatures

#: Chosen on Complete Journey at cut-offs before those that are reported (2017-09-06, 2017-10-04). A household buys all
#: its categories together or none: small leaves memorise households.
LIGHTGBM_PARAMS: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.06,
    "min_data_in_leaf": 1000,
    "lambda_l2": 100.0,
    "feature_fraction_bynode": 0.5,
    "max_bin": 63,
}
#: Maximum number of training rows, and number of trees for them. With 100,000 and 120 the log loss of two earlier
#: cut-offs was 0.0005 and 0.0008 higher.
MAX_ROWS = 150_000
TREES = 180
#: With few rows, a leaf must hold at least one row in this many.
MIN_LEAF_SHARE = 150
#: Weight, in rows, of the overall rate in the rate of one category.
PRIOR_WEIGHT = 50
#: Minimum number of rows with each outcome to fit on.
MIN_OUTCOMES = 100


@dataclass(frozen=True)
class RestockModel:
    """Boosted trees on top of BG/NBD per customer and category, one ensemble for all horizons.

    Each training row is given one of the horizons at random; the horizon is a feature with a monotone constraint, so
    that a longer one never lowers the probability. Other features: of the category (need_*), and `CategoryFeatures`.
    """

    columns: list[str]
    bgnbd: bg_nbd.BgNbd
    feature_builder: CategoryFeatures
    ensemble: boosted_trees.BoostedTrees
    mean: list[float]  # mean outcome of each horizon
    base: float  # share of training rows bought again within the shortest horizon
    rates: Mapping[str, float] = field(repr=False)  # the same by category, shrunk to base

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, **overrides: Any) -> Self:
        """Fit on replenishment rows whose outcome is known, a sample of them where there are many.

        frame: one row per customer, cutoff and category, with features of the category and of the customer.
        label: columns within_7, within_14 and within_28: 1 = bought again, 0 = not, NaN = not known yet.
        overrides: replace single LightGBM parameters.

        Each cutoff has its own BG/NBD, fitted to its own rows.
        """
        require_columns(
            frame,
            [
                "category",
                category_bg_nbd.NEED_TIMES_COLUMN,
                category_bg_nbd.NEED_RECENCY_COLUMN,
                category_bg_nbd.NEED_FIRST_COLUMN,
            ],
        )
        labels = category_bg_nbd.read_outcomes(label)
        generator = np.random.default_rng([seed, len(frame)])
        rows = _sample_rows(frame, labels, generator)
        rates, base = _category_rates(frame, labels, rows)
        columns = [name for name in feature_columns(frame) if name.startswith("need_")]
        days, outcome = _draw_horizons(labels, rows, generator)
        init_score, category_terms = _terms_by_cutoff(frame, rows, days, seed)
        design = np.column_stack([_base_design(frame.iloc[rows], columns, rates, base), category_terms, days])
        names = (*(f"f{position}" for position in range(len(columns))), "category_rate", *FEATURE_NAMES, "days_ahead")
        monotone = {"monotone_constraints": [0] * (len(names) - 1) + [1]}
        leaf_size = {
            "min_data_in_leaf": int(np.clip(len(rows) // MIN_LEAF_SHARE, 20, LIGHTGBM_PARAMS["min_data_in_leaf"]))
        }
        params = boosted_trees.lightgbm_params(
            LIGHTGBM_PARAMS | leaf_size | monotone | overrides, objective="binary", seed=seed
        )
        training_rows = boosted_trees.TrainingRows(design, outcome, init_score, names=names)
        customers = frame["customer_key"].to_numpy()[rows]
        ensemble = boosted_trees.fit_trees(training_rows, params, _choose_tree_count(training_rows, customers, params))
        latest = latest_rows(frame)
        mean_outcomes = category_bg_nbd.mean_outcomes(label, np.empty((0, 3)))
        return cls(
            columns,
            category_bg_nbd.fit_bgnbd(latest, seed=seed),
            CategoryFeatures.fit(latest),
            ensemble,
            mean_outcomes,
            base,
            rates,
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (n, 3), non-decreasing.

        The frame must hold all categories of each of its customers.
        """
        summary, shared_design = category_bg_nbd.purchase_summary(frame), self._shared_design(frame)
        probabilities = np.empty((len(frame), len(category_bg_nbd.HORIZONS_DAYS)))
        for column, days in enumerate(category_bg_nbd.HORIZONS_DAYS):
            log_odds = bg_nbd.log_odds(category_bg_nbd.purchase_probability(self.bgnbd, summary, float(days)))
            probabilities[:, column] = expit(
                log_odds + self.ensemble.raw_score(self._horizon_design(frame, shared_design, days))
            )
        non_decreasing: Floats = np.maximum.accumulate(
            np.clip(probabilities, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY), axis=1
        )
        return non_decreasing

    def contributions(self, frame: pd.DataFrame, days: int = 14) -> pd.DataFrame:
        """Effects in log odds against the mean, one column per feature; + is towards a purchase within `days` days.

        The trees' part is TreeSHAP (Lundberg 2020). BG/NBD's part is attributed to need_times (low frequency) and
        need_recency_days (days since the last purchase).
        """
        frequency_effect, recency_effect = self.bgnbd.no_purchase_log_odds_parts(
            category_bg_nbd.purchase_summary(frame), days
        )
        tree_effects = self.ensemble.contributions(self._horizon_design(frame, self._shared_design(frame), days))[
            :, :-1
        ]
        names = [*self.columns, "category_rate", *FEATURE_NAMES, "days_ahead"]
        effects = pd.DataFrame(tree_effects, columns=names, index=frame.index).drop(columns="days_ahead")
        for name, part in (
            (category_bg_nbd.NEED_TIMES_COLUMN, -bg_nbd.log_odds(1 - self.base) - frequency_effect),
            (category_bg_nbd.NEED_RECENCY_COLUMN, -recency_effect),
        ):
            effects[name] += part
        return effects

    def population_average(self) -> Floats:
        """The mean outcome of all customers and categories for each horizon: array (n_horizons,)."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON.

        The JSON keeps the keys of version 0.4.0: needs and cupboard.
        """
        self.ensemble.save(folder)
        content = {
            "columns": self.columns,
            "needs": asdict(self.bgnbd),
            "cupboard": self.feature_builder.to_dict(),
            "mean": self.mean,
            "base": self.base,
            "rates": dict(self.rates),
        }
        write_json(folder / MODEL_FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the JSON back."""
        saved = read_json(folder / MODEL_FILE)
        bgnbd, feature_builder = bg_nbd.BgNbd(**saved["needs"]), CategoryFeatures.from_dict(saved["cupboard"])
        ensemble = boosted_trees.BoostedTrees.load(folder)
        return cls(saved["columns"], bgnbd, feature_builder, ensemble, saved["mean"], saved["base"], saved["rates"])

    def _shared_design(self, frame: pd.DataFrame) -> NDArray[Any]:
        return np.column_stack(
            [_base_design(frame, self.columns, self.rates, self.base), self.feature_builder.build(frame)]
        )

    def _horizon_design(self, frame: pd.DataFrame, shared_design: NDArray[Any], days: int) -> NDArray[Any]:
        days_ahead = np.full(len(frame), float(days))
        category_terms = shared_design[:, len(self.columns) + 1 :]
        return np.column_stack(
            [shared_design, self.feature_builder.build_ahead(frame, category_terms, days_ahead), days_ahead]
        )


def _sample_rows(frame: pd.DataFrame, labels: Floats, generator: np.random.Generator) -> NDArray[np.int64]:
    """Sorted positions of the rows to train on. Raises InsufficientData with too few outcomes of either kind."""
    rows = np.flatnonzero(category_bg_nbd.is_replenishment(frame) & np.isfinite(labels[:, 0]))
    purchases = labels[rows, 0].sum()
    if min(purchases, len(rows) - purchases) < MIN_OUTCOMES:
        raise InsufficientData(
            f"{int(purchases)} of {len(rows)} customer-category pairs were bought again within "
            f"{category_bg_nbd.HORIZONS_DAYS[0]} days; {MIN_OUTCOMES} of each outcome are needed: "
            "load a longer history, or products with categories"
        )
    return np.sort(generator.choice(rows, MAX_ROWS, replace=False)) if len(rows) > MAX_ROWS else rows


def _category_rates(frame: pd.DataFrame, labels: Floats, rows: NDArray[np.int64]) -> tuple[dict[str, float], float]:
    """Share of rows bought again within the shortest horizon: by category, shrunk to the overall share, and overall."""
    first_outcomes = pd.Series(labels[rows, 0]).groupby(frame["category"].to_numpy()[rows])
    base = float(labels[rows, 0].mean())
    rates = (first_outcomes.sum() + PRIOR_WEIGHT * base) / (first_outcomes.count() + PRIOR_WEIGHT)
    return {str(category): float(rate) for category, rate in rates.items()}, base


def _draw_horizons(labels: Floats, rows: NDArray[np.int64], generator: np.random.Generator) -> tuple[Floats, Floats]:
    """One horizon per row at random, among those with a known outcome, and that outcome."""
    observed_horizons = np.isfinite(labels[rows]).sum(axis=1)  # shorter horizons are over before longer ones
    drawn = np.minimum((generator.random(len(rows)) * observed_horizons).astype(np.int64), observed_horizons - 1)
    return np.array(category_bg_nbd.HORIZONS_DAYS, dtype=np.float64)[drawn], labels[rows, drawn]


def _terms_by_cutoff(
    frame: pd.DataFrame, rows: NDArray[np.int64], days: Floats, seed: int
) -> tuple[Floats, NDArray[Any]]:
    """BG/NBD's log odds and the CategoryFeatures of each row, fitted to all rows of its cutoff."""
    cutoff = pd.to_datetime(frame["as_of"], utc=True, cache=False).to_numpy(dtype="datetime64[us]")
    init_score, category_terms = np.zeros(len(rows)), np.zeros((len(rows), len(FEATURE_NAMES)), dtype=np.float32)
    for this_cutoff in np.unique(cutoff[rows]):
        cutoff_rows = np.flatnonzero(cutoff == this_cutoff)
        cutoff_frame, mask = frame.take(cutoff_rows), cutoff[rows] == this_cutoff
        replenishment_rows = cutoff_rows[category_bg_nbd.is_replenishment(cutoff_frame)]
        positions = np.searchsorted(replenishment_rows, rows[mask])
        training_frame, feature_builder = frame.take(rows[mask]), CategoryFeatures.fit(cutoff_frame)
        bgnbd = category_bg_nbd.fit_bgnbd(cutoff_frame, seed=seed)
        init_score[mask] = bg_nbd.log_odds(
            category_bg_nbd.purchase_probability(bgnbd, category_bg_nbd.purchase_summary(training_frame), days[mask])
        )
        base_features = feature_builder.build(frame.take(replenishment_rows))[positions]
        category_terms[mask] = np.column_stack(
            [base_features, feature_builder.build_ahead(training_frame, base_features, days[mask])]
        )
    return init_score, category_terms


def _base_design(frame: pd.DataFrame, columns: list[str], rates: Mapping[str, float], base: float) -> Floats:
    require_columns(frame, ["category"])
    rate = frame["category"].map(rates).astype(np.float64).fillna(base)
    return np.column_stack([matrix(frame, columns), rate])


def _choose_tree_count(
    training_rows: boosted_trees.TrainingRows, customers: NDArray[Any], params: dict[str, Any]
) -> int:
    """The number of trees: TREES, or with few rows the number with the lowest loss on held-out customers.

    For the rows of 20 customers of Complete Journey 120 trees had a log loss of .561, BG/NBD alone .536.
    """
    if len(training_rows.outcome) >= MAX_ROWS // 2:
        return TREES
    is_validation = np.unique(customers, return_inverse=True)[1] % 4 == 0
    if is_validation.all() or len(set(training_rows.outcome[is_validation])) < 2:
        return TREES // 6
    return boosted_trees.fit_with_early_stopping(
        training_rows.subset(~is_validation),
        training_rows.subset(is_validation),
        params,
        max_trees=4 * TREES,
        patience=20,
    ).tree_count
