"""Value: what a customer will spend over the horizon, from their rhythm, their spending and their taste."""

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
from models.value import baselines as value_baselines
from models.value import gamma_gamma
from models.value import outcomes as value_outcomes

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
#: From 75 to 150 the figures hardly move, on both shops and at all earlier cut-offs.
TREES = 100
#: So many rows are learned from at most: twice as many moved the normalised Gini by 0.001.
MAX_ROWS = 60_000
#: Part of a horizon teaches too, from this share of it on: what was spent last month is this season's spending.
MIN_HORIZON_SHARE = 0.3
#: One wholesaler's order must not teach what everybody else will spend.
WINSOR_QUANTILE = 0.999
#: What the rhythm adds to the features, and which of the shop's own features each of them speaks of.
BGNBD_FEATURES = {
    "rhythm_value": "spend_total",
    "rhythm_purchases": "purchase_days",
    "rhythm_alive": "recency_days",
    "rhythm_rate": "purchase_days",
    "rhythm_worth": "spend_day_mean",
}
#: And what a row is asked: how many days ahead.
DAYS_AHEAD_COLUMN = "days_ahead"
MIN_AMOUNT = 1e-3
#: The answer is brought to the level of what is expected of all customers, within these bounds.
LEVEL_BOUNDS = (1 / 4, 4.0)
FREE_FILE, ANCHORED_FILE = "free.txt", "anchored.txt"


@dataclass(frozen=True)
class ValueModel:
    """Three ways to foretell an amount of which many spend nothing and the rest very differently (Tweedie's loss).

    The rhythm (BG/NBD) and what a visit is worth (Gamma-Gamma) are features, fitted to each moment's own rows.
    One grove is grown from nothing, one on top of what rhythm and worth expect, and one rule is straight; the answer
    lies amid them on a scale of logarithms. The first and the last rank better, the second is nearer in level: so
    the total is the second's or, where a year ago tells of the season, what rhythm and worth expect in all times
    what came of that then.
    """

    columns: list[str]
    rhythm: bg_nbd.BgNbd
    worth: gamma_gamma.GammaGamma
    free: boosted_trees.BoostedTrees
    anchored: boosted_trees.BoostedTrees
    straight: TweedieRegression
    horizon_days: int
    mean: float
    usual: float
    season: float = 1.0
    level: float = 0.0

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: value_outcomes.SpendLabel,
        *,
        seed: int = 0,
        horizon_days: int = 90,
        **overrides: Any,
    ) -> Self:
        """Learn from every row of whose horizon enough is over; a row's days ahead are a feature.

        label: what was spent in [as_of, as_of + horizon), NaN = not known yet; or columns spent and days, of as much
        of the horizon as is over. `growth` overrides LightGBM's settings.
        """
        labels = value_outcomes.select_labelled_spend(frame, label, horizon_days)[1]
        rows = _training_rows(frame, *value_outcomes.read_spend(label, horizon_days), horizon_days, seed)
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
        return fitted._recalibrated(frame, value_outcomes.full_horizon_spend(label, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon, from as_of on."""
        return np.exp(np.clip(np.mean(self._log_predictions(frame), axis=0) + self.level, -20.0, 40.0))

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each feature moves each row's logarithm from the usual; + is towards spending more.

        The groves' part is TreeSHAP's (Lundberg 2020). What the rhythm expects counts as the figures it comes from.
        """
        design, log_expected = self._design(frame)
        parts = sum(ensemble.contributions(design)[:, :-1] for ensemble in (self.free, self.anchored))
        parts = (parts + self.straight.contributions(design)) / 3
        names = [*self.columns, *BGNBD_FEATURES.values(), DAYS_AHEAD_COLUMN]
        parts[:, names.index("spend_total", len(self.columns))] += (log_expected - self.usual) / 3
        features = [name for name in dict.fromkeys(names) if name != DAYS_AHEAD_COLUMN]
        to_feature = np.array([[name == feature for feature in features] for name in names], dtype=np.float64)
        return pd.DataFrame(parts @ to_feature, columns=features, index=frame.index)

    def population_average(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.free.save(folder, FREE_FILE)
        self.anchored.save(folder, ANCHORED_FILE)
        own = ("columns", "horizon_days", "mean", "usual", "season", "level")
        content = {name: getattr(self, name) for name in own}
        parts = {"rhythm": asdict(self.rhythm), "worth": asdict(self.worth), "straight": self.straight.to_dict()}
        write_json(folder / MODEL_FILE, content | parts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / MODEL_FILE)
        saved["rhythm"], saved["worth"] = bg_nbd.BgNbd(**saved["rhythm"]), gamma_gamma.GammaGamma(**saved["worth"])
        saved["straight"] = TweedieRegression.from_dict(saved["straight"])
        return cls(
            free=boosted_trees.BoostedTrees.load(folder, FREE_FILE),
            anchored=boosted_trees.BoostedTrees.load(folder, ANCHORED_FILE),
            **saved,
        )

    def _log_predictions(self, frame: pd.DataFrame) -> list[Floats]:
        """The three answers, as logarithms; the anchored one second."""
        design, log_expected = self._design(frame)
        log_days = np.log(self.horizon_days)
        return [
            self.free.raw_score(design) + self.usual,
            self.anchored.raw_score(design) + log_expected,
            self.straight.linear_predictor(design) + log_days,
        ]

    def _design(self, frame: pd.DataFrame) -> tuple[Floats, Floats]:
        terms = _terms(self.rhythm, self.worth, frame, self.horizon_days)
        days_ahead = np.full((len(frame), 1), float(self.horizon_days))
        return np.hstack([matrix(frame, self.columns), terms, days_ahead]), _log_expected_spend(terms)

    def _recalibrated(self, frame: pd.DataFrame, spent: Floats) -> Self:
        """The same with its total put right: see the class."""
        season = value_baselines.seasonal_index(frame, spent, self.horizon_days)
        latest = base.latest_rows(frame)
        log_predictions = self._log_predictions(latest)
        total = np.exp(log_predictions[1]).sum()
        if season != 1.0:
            total = season * gamma_gamma.expected_spend(self.rhythm, self.worth, latest, self.horizon_days).sum()
        change = total / max(np.exp(np.mean(log_predictions, axis=0)).sum(), MIN_AMOUNT)
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return type(self)(**own | {"season": season, "level": float(np.log(np.clip(change, *LEVEL_BOUNDS)))})


@dataclass(frozen=True)
class _ValueTrainingRows:
    """What is learned from: features, amounts, and the logarithms from which the ways start, by days and by rhythm."""

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
    """The rows to learn from, in their order."""
    rows = np.flatnonzero(np.isfinite(spent) & (days >= max(1.0, MIN_HORIZON_SHARE * horizon_days)))
    if len(rows) <= MAX_ROWS:
        return rows
    return np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, MAX_ROWS, replace=False))


def _terms_by_cutoff(frame: pd.DataFrame, rows: NDArray[np.intp], days: Floats) -> Floats:
    """What the rhythm said of each row over its own days, fitted to the rows of its moment."""
    cutoff = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
    terms = np.zeros((len(rows), len(BGNBD_FEATURES)))
    for this_cutoff in np.unique(cutoff[rows]):
        mask = cutoff[rows] == this_cutoff
        fitted_models = gamma_gamma.fit_bgnbd_and_spend(frame[cutoff == this_cutoff])
        terms[mask] = _terms(*fitted_models, frame.iloc[rows[mask]], days[mask])
    return terms


def _terms(
    bgnbd: bg_nbd.BgNbd, spend_model: gamma_gamma.GammaGamma, frame: pd.DataFrame, days: float | Floats
) -> Floats:
    summary = bg_nbd.purchase_summary(frame)
    purchases = np.maximum(bgnbd.expected_purchases(*summary, days), 0.0)
    mean_spend = spend_model.expected_spend(*gamma_gamma.count_and_mean_spend(frame))
    return np.column_stack(
        [purchases * mean_spend, purchases, bgnbd.p_alive(*summary), bgnbd.rate(summary.x, summary.T), mean_spend]
    )


def _log_expected_spend(terms: Floats) -> Floats:
    """The logarithm of what rhythm and worth expect: where the trees have learned nothing, that is the answer."""
    logs: Floats = np.log(np.maximum(terms[:, 0], MIN_AMOUNT))
    return logs
