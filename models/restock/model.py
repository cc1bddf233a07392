"""Restock: when a customer's coffee runs out, and everything else that they buy again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from models import base as models_base
from models.base import (
    MODEL_FILE,
    Floats,
    InsufficientData,
    feature_columns,
    matrix,
    read_json,
    require_columns,
    write_json,
)
from models.btyd import bg_nbd
from models.estimators import boosted_trees
from models.restock import category_bg_nbd
from models.restock.category_features import FEATURE_NAMES, CategoryFeatures

#: Chosen on Complete Journey at cut-offs before those that are reported (2017-09-06, 2017-10-04). A household's needs
#: come up together or not at all: small leaves learn households by heart.
LIGHTGBM_PARAMS: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.06,
    "min_data_in_leaf": 1000,
    "lambda_l2": 100.0,
    "feature_fraction_bynode": 0.5,
    "max_bin": 63,
}
#: So many needs are learned from, and so many trees grown on them. With 100,000 and 120 the log loss of two earlier
#: cut-offs was 0.0005 and 0.0008 higher.
MAX_ROWS = 150_000
TREES = 180
#: Of few needs, a leaf may hold one in so many.
MIN_LEAF_SHARE = 150
#: A category's own rate leans on everybody's as if it had been seen so often.
PRIOR_WEIGHT = 50
#: The fewest outcomes of each kind that anything may be learned from.
MIN_OUTCOMES = 100


@dataclass(frozen=True)
class RestockModel:
    """Trees grown on top of each need's own rhythm (BG/NBD), one grove for all spans of days ahead.

    Each need in the lesson is asked about one of the spans, drawn by lot; the span is a feature, and a longer one
    never makes a purchase less likely. Of the customer they see what `cupboard` makes of their visits and needs.
    """

    columns: list[str]
    needs: bg_nbd.BgNbd
    feature_builder: CategoryFeatures
    ensemble: boosted_trees.BoostedTrees
    mean: list[float]
    base: float
    rates: Mapping[str, float] = field(repr=False)

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, **overrides: Any) -> Self:
        """Learn from needs whose outcome is known, a sample of them where there are many.

        frame: a row for a customer, moment and `category`, with the numbers of the need and of the customer.
        label: within_7, within_14 and within_28; NaN = not known yet. Every moment has its own rhythm, fitted to
        its own rows. `growth` overrides LightGBM's settings.
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
        names = (*(f"f{i}" for i in range(len(columns))), "category_rate", *FEATURE_NAMES, "days_ahead")
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
        latest = models_base.latest_rows(frame)
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
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling; a customer's needs together."""
        summary, shared_design = category_bg_nbd.purchase_summary(frame), self._shared_design(frame)
        probabilities = np.empty((len(frame), len(category_bg_nbd.HORIZONS_DAYS)))
        for column, days in enumerate(category_bg_nbd.HORIZONS_DAYS):
            odds = bg_nbd.log_odds(category_bg_nbd.purchase_probability(self.needs, summary, float(days)))
            probabilities[:, column] = expit(
                odds + self.ensemble.raw_score(self._horizon_design(frame, shared_design, days))
            )
        non_decreasing: Floats = np.maximum.accumulate(
            np.clip(probabilities, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY), axis=1
        )
        return non_decreasing

    def contributions(self, frame: pd.DataFrame, days: int = 14) -> pd.DataFrame:
        """How much each feature moves each row from the usual, in log odds; + is towards needing it within the days.

        The trees' part is TreeSHAP's (Lundberg 2020). The rhythm's part counts as need_times (how rare it is) and
        need_recency_days (the present silence).
        """
        frequency_effect, recency_effect = self.needs.no_purchase_log_odds_parts(
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
        """The share of needs that came up within each span."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.ensemble.save(folder)
        content = {
            "columns": self.columns,
            "needs": asdict(self.needs),
            "cupboard": self.feature_builder.to_dict(),
            "mean": self.mean,
            "base": self.base,
            "rates": dict(self.rates),
        }
        write_json(folder / MODEL_FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / MODEL_FILE)
        needs, feature_builder = bg_nbd.BgNbd(**saved["needs"]), CategoryFeatures.from_dict(saved["cupboard"])
        ensemble = boosted_trees.BoostedTrees.load(folder)
        return cls(saved["columns"], needs, feature_builder, ensemble, saved["mean"], saved["base"], saved["rates"])

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
    """The rows to learn from, in their order."""
    rows = np.flatnonzero(category_bg_nbd.is_replenishment(frame) & np.isfinite(labels[:, 0]))
    purchases = labels[rows, 0].sum()
    if min(purchases, len(rows) - purchases) < MIN_OUTCOMES:
        raise InsufficientData(
            f"{int(purchases)} of {len(rows)} needs came up within {category_bg_nbd.HORIZONS_DAYS[0]} days; {MIN_OUTCOMES} of each kind are needed: "
            "load a longer history, or products with categories"
        )
    return np.sort(generator.choice(rows, MAX_ROWS, replace=False)) if len(rows) > MAX_ROWS else rows


def _category_rates(frame: pd.DataFrame, labels: Floats, rows: NDArray[np.int64]) -> tuple[dict[str, float], float]:
    """How often the needs of each category came up within the shortest span, and those of all."""
    first_outcomes = pd.Series(labels[rows, 0]).groupby(frame["category"].to_numpy()[rows])
    base = float(labels[rows, 0].mean())
    rates = (first_outcomes.sum() + PRIOR_WEIGHT * base) / (first_outcomes.count() + PRIOR_WEIGHT)
    return {str(category): float(rate) for category, rate in rates.items()}, base


def _draw_horizons(labels: Floats, rows: NDArray[np.int64], generator: np.random.Generator) -> tuple[Floats, Floats]:
    """One span for each row, and what became of it."""
    observed_horizons = np.isfinite(labels[rows]).sum(axis=1)  # the shorter spans are over before the longer ones
    drawn = np.minimum((generator.random(len(rows)) * observed_horizons).astype(np.int64), observed_horizons - 1)
    return np.array(category_bg_nbd.HORIZONS_DAYS, dtype=np.float64)[drawn], labels[rows, drawn]


def _terms_by_cutoff(
    frame: pd.DataFrame, rows: NDArray[np.int64], days: Floats, seed: int
) -> tuple[Floats, NDArray[Any]]:
    """What the need's own rhythm and the cupboard said of each row at its moment, from all rows of that moment."""
    cutoff = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
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
    """How many trees to grow: as many as serve customers whose needs they have not seen, where there are few rows.

    On the needs of 20 customers of Complete Journey 120 trees had a log loss of .561, their rhythm alone .536.
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
