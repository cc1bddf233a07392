"""The customer-value model: expected spend within the horizon."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.base import MODEL_FILE, Floats, feature_columns, matrix, read_json, write_json
from models.btyd import bg_nbd
from models.estimators import boosted_trees
from models.estimators.tweedie_regression import TweedieRegression
from models.value import baselines, gamma_gamma, outcomes
from models.value.gamma_gamma import GammaGamma

#: Chosen on Complete Journey at cut-offs before those that are reported (horizons of 30 to 60 days, July to September).
LIGHTGBM_PARAMS: dict[str, Any] = {
    "tweedie_variance_power": 1.4,
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 150,
    "lambda_l2": 5.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
#: From 75 to 150 the metrics hardly change, on both shops and at all earlier cut-offs.
TREES = 100
#: Maximum number of rows to train on: twice as many changed the normalised Gini by 0.001.
MAX_ROWS = 60_000
#: Rows with an incomplete horizon are used from this share of it on: last month's spend reflects the current season.
MIN_HORIZON_SHARE = 0.3
#: Spend is capped at this quantile, so that one wholesaler's order does not dominate the fit.
WINSOR_QUANTILE = 0.999
#: BG/NBD and Gamma-Gamma terms of the design, and the feature to which each is attributed.
BGNBD_FEATURES = {
    "rhythm_value": "spend_total",
    "rhythm_purchases": "purchase_days",
    "rhythm_alive": "recency_days",
    "rhythm_rate": "purchase_days",
    "rhythm_worth": "spend_day_mean",
}
#: The feature for the number of days ahead that a row's outcome covers.
DAYS_AHEAD_COLUMN = "days_ahead"
MIN_AMOUNT = 1e-3
#: Bounds of the factor by which the recalibration may change the total.
LEVEL_BOUNDS = (1 / 4, 4.0)
#: Names of version 0.4.0.
FREE_FILE, OFFSET_TREES_FILE = "free.txt", "anchored.txt"


@dataclass(frozen=True)
class ValueModel:
    """Expected spend within horizon_days: the mean, on the log scale, of three Tweedie models, recalibrated.

    Tweedie's loss suits an outcome that is zero for many customers and very different for the others. BG/NBD and
    Gamma-Gamma give features, fitted to the rows of each cutoff. The models are boosted trees from a constant (free),
    boosted trees on top of BG/NBD x Gamma-Gamma (offset_trees), and a linear Tweedie regression (tweedie). The first
    and the last rank better, the second has the better total: so the total is the second's or, where outcomes of a year
    ago are known, the expectation of BG/NBD x Gamma-Gamma times its seasonal index.
    """

    columns: list[str]
    bgnbd: bg_nbd.BgNbd
    gamma_gamma: GammaGamma
    free: boosted_trees.BoostedTrees
    offset_trees: boosted_trees.BoostedTrees
    tweedie: TweedieRegression
    horizon_days: int
    mean: float
    usual: float  # log of the mean spend over the horizon: the constant from which the free trees start
    season: float = 1.0  # seasonal index
    level: float = 0.0  # recalibration of the total, on the log scale

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: outcomes.SpendLabel,
        *,
        seed: int = 0,
        horizon_days: int = 90,
        **overrides: Any,
    ) -> Self:
        """Fit on every row of whose horizon a sufficient share is over; the days that are over are a feature.

        label: (n,): spend in [as_of, as_of + horizon), NaN = not known yet; or columns spent and days, for the part of
            the horizon that is over.
        overrides: replace single LightGBM parameters.
        """
        labels = outcomes.select_labelled_spend(frame, label, horizon_days)[1]
        rows = _training_rows(frame, *outcomes.read_spend(label, horizon_days), horizon_days, seed)
        params = boosted_trees.lightgbm_params(LIGHTGBM_PARAMS | overrides, objective="tweedie", seed=seed)
        usual = float(np.log(rows.outcome.sum() / np.exp(rows.log_days).sum()))
        fitted = cls(
            feature_columns(frame),
            *gamma_gamma.fit_bgnbd_and_spend(base.latest_rows(frame)),
            boosted_trees.fit_trees(rows.starting_from(rows.log_days + usual), params, TREES),
            boosted_trees.fit_trees(rows.starting_from(rows.log_expected), params, TREES),
            TweedieRegression.fit(rows.design, rows.outcome, rows.log_days),
            horizon_days,
            float(labels.mean()),
            usual + float(np.log(horizon_days)),
        )
        return fitted._recalibrated(frame, outcomes.full_horizon_spend(label, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """Expected spend of each row's customer over the horizon from as_of on: array (n,)."""
        return np.exp(np.clip(np.mean(self._log_predictions(frame), axis=0) + self.level, -20.0, 40.0))

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The effect of each feature on each row, on the log scale, one column per feature; + is towards more spend.

        The part of the trees is TreeSHAP (Lundberg 2020). BG/NBD and Gamma-Gamma terms are attributed to the features
        that they are computed from.
        """
        design, log_expected = self._design(frame)
        parts = sum(ensemble.contributions(design)[:, :-1] for ensemble in (self.free, self.offset_trees))
        parts = (parts + self.tweedie.contributions(design)) / 3
        names = [*self.columns, *BGNBD_FEATURES.values(), DAYS_AHEAD_COLUMN]
        parts[:, names.index("spend_total", len(self.columns))] += (log_expected - self.usual) / 3
        features = [name for name in dict.fromkeys(names) if name != DAYS_AHEAD_COLUMN]
        to_feature = np.array([[name == feature for feature in features] for name in names], dtype=np.float64)
        return pd.DataFrame(parts @ to_feature, columns=features, index=frame.index)

    def population_average(self) -> float:
        """Mean spend of a customer over the horizon."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON.

        The JSON keeps the keys of version 0.4.0: rhythm, worth and straight.
        """
        self.free.save(folder, FREE_FILE)
        self.offset_trees.save(folder, OFFSET_TREES_FILE)
        names = ("columns", "horizon_days", "mean", "usual", "season", "level")
        content = {name: getattr(self, name) for name in names}
        parts = {"rhythm": asdict(self.bgnbd), "worth": asdict(self.gamma_gamma), "straight": self.tweedie.to_dict()}
        write_json(folder / MODEL_FILE, content | parts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the JSON back."""
        saved = read_json(folder / MODEL_FILE)
        return cls(
            bgnbd=bg_nbd.BgNbd(**saved.pop("rhythm")),
            gamma_gamma=GammaGamma(**saved.pop("worth")),
            tweedie=TweedieRegression.from_dict(saved.pop("straight")),
            free=boosted_trees.BoostedTrees.load(folder, FREE_FILE),
            offset_trees=boosted_trees.BoostedTrees.load(folder, OFFSET_TREES_FILE),
            **saved,
        )

    def _log_predictions(self, frame: pd.DataFrame) -> list[Floats]:
        """The three predictions on the log scale, each (n,); that of the offset trees is second."""
        design, log_expected = self._design(frame)
        log_days = np.log(self.horizon_days)
        return [
            self.free.raw_score(design) + self.usual,
            self.offset_trees.raw_score(design) + log_expected,
            self.tweedie.linear_predictor(design) + log_days,
        ]

    def _design(self, frame: pd.DataFrame) -> tuple[Floats, Floats]:
        terms = _terms(self.bgnbd, self.gamma_gamma, frame, self.horizon_days)
        days_ahead = np.full((len(frame), 1), float(self.horizon_days))
        return np.hstack([matrix(frame, self.columns), terms, days_ahead]), _log_expected_spend(terms)

    def _recalibrated(self, frame: pd.DataFrame, spent: Floats) -> Self:
        """The same model with its total recalibrated, as described in the class."""
        season = baselines.seasonal_index(frame, spent, self.horizon_days)
        latest = base.latest_rows(frame)
        log_predictions = self._log_predictions(latest)
        total = np.exp(log_predictions[1]).sum()
        if season != 1.0:
            total = season * gamma_gamma.expected_spend(self.bgnbd, self.gamma_gamma, latest, self.horizon_days).sum()
        change = total / max(np.exp(np.mean(log_predictions, axis=0)).sum(), MIN_AMOUNT)
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return type(self)(**fields | {"season": season, "level": float(np.log(np.clip(change, *LEVEL_BOUNDS)))})


@dataclass(frozen=True)
class _ValueTrainingRows:
    """Features, capped spend, and the two offsets on the log scale: of days, and of BG/NBD x Gamma-Gamma."""

    design: Floats
    outcome: Floats
    log_days: Floats
    log_expected: Floats
    names: tuple[str, ...]

    def starting_from(self, init_score: Floats) -> boosted_trees.TrainingRows:
        return boosted_trees.TrainingRows(self.design, self.outcome, init_score, names=self.names)


def _training_rows(
    frame: pd.DataFrame, spent: Floats, days: Floats, horizon_days: int, seed: int
) -> _ValueTrainingRows:
    columns = feature_columns(frame)
    names = (*(f"f{position}" for position in range(len(columns))), *BGNBD_FEATURES, DAYS_AHEAD_COLUMN)
    rows = _sample_rows(spent, days, horizon_days, seed)
    days, spent = days[rows], np.maximum(spent[rows], 0.0)
    terms = _terms_by_cutoff(frame, rows, days)
    capped = np.minimum(spent, np.quantile(spent[spent > 0], WINSOR_QUANTILE))
    design = np.hstack([matrix(frame, columns)[rows], terms, days[:, None]])
    return _ValueTrainingRows(design, capped, np.log(days), _log_expected_spend(terms), names)


def _sample_rows(spent: Floats, days: Floats, horizon_days: int, seed: int) -> NDArray[np.intp]:
    """Sorted positions of the rows to train on."""
    rows = np.flatnonzero(np.isfinite(spent) & (days >= max(1.0, MIN_HORIZON_SHARE * horizon_days)))
    if len(rows) <= MAX_ROWS:
        return rows
    return np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, MAX_ROWS, replace=False))


def _terms_by_cutoff(frame: pd.DataFrame, rows: NDArray[np.intp], days: Floats) -> Floats:
    """BG/NBD and Gamma-Gamma terms of each row over its own days, fitted to the rows of its cutoff."""
    cutoff = pd.to_datetime(frame["as_of"], utc=True, cache=False).to_numpy(dtype="datetime64[us]")
    terms = np.zeros((len(rows), len(BGNBD_FEATURES)))
    for this_cutoff in np.unique(cutoff[rows]):
        mask = cutoff[rows] == this_cutoff
        fitted_models = gamma_gamma.fit_bgnbd_and_spend(frame[cutoff == this_cutoff])
        terms[mask] = _terms(*fitted_models, frame.iloc[rows[mask]], days[mask])
    return terms


def _terms(bgnbd: bg_nbd.BgNbd, spend_model: GammaGamma, frame: pd.DataFrame, days: float | Floats) -> Floats:
    summary = bg_nbd.purchase_summary(frame)
    purchases = np.maximum(bgnbd.expected_purchases(*summary, days), 0.0)
    mean_spend = spend_model.expected_spend(*gamma_gamma.count_and_mean_spend(frame))
    return np.column_stack(
        [purchases * mean_spend, purchases, bgnbd.p_alive(*summary), bgnbd.rate(summary.x, summary.T), mean_spend]
    )


def _log_expected_spend(terms: Floats) -> Floats:
    """The logarithm of BG/NBD x Gamma-Gamma, the offset from which the offset trees start."""
    logs: Floats = np.log(np.maximum(terms[:, 0], MIN_AMOUNT))
    return logs
