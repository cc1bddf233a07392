"""The churn model: P(no purchase within the horizon), for every customer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit

from models import base
from models.base import MODEL_FILE, Floats, feature_columns, matrix, read_json, write_json
from models.btyd import bg_nbd
from models.churn import person_periods, seasonal_bg_nbd, seasonal_calibration
from models.churn.period_hazard import PeriodHazard
from models.churn.seasonal_bg_nbd import BgNbdByCutoff
from models.churn.seasonal_calibration import IDENTITY, NO_SEASON, PastPredictions, SeasonalCalibration
from models.estimators import logistic_regression, platt_scaling
from models.estimators.logistic_regression import LogisticRegression
from models.estimators.platt_scaling import PlattScaling
from models.survival import censored_durations, outcomes
from models.survival.censored_durations import Ints

#: First columns of the logistic design, from BG/NBD: three terms of its log odds, P(alive), the purchase rate.
ODDS_COLUMNS, ALIVE_COLUMN, RATE_COLUMN = range(3), 3, 4


@dataclass(frozen=True)
class ChurnModel:
    """P(no purchase within horizon_days): the mean, in log odds, of two models, recalibrated.

    The models are a discrete-time hazard (boosted trees over four periods of the horizon, on top of BG/NBD) and a ridge
    logistic regression. Both only separate the customers of one cutoff; the mean probability is BG/NBD's, after
    seasonal Platt scaling on last year's outcomes. Fitted on active customers (a purchase within two horizons); any
    customer can be scored.
    """

    columns: list[str]
    bgnbd: bg_nbd.BgNbd
    period_hazard: PeriodHazard
    logistic: LogisticRegression
    horizon_days: int
    base: float
    season: SeasonalCalibration = NO_SEASON
    level: PlattScaling = IDENTITY

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: outcomes.ChurnLabel,
        *,
        seed: int = 0,
        horizon_days: int = 28,
        **overrides: Any,
    ) -> Self:
        """Fit on every row whose outcome is at least partly known.

        label: (n,): 1 = no purchase in [as_of, as_of + horizon), 0 = at least one, NaN = not known yet. Better: a frame
            with columns churned (the same), duration_days and observed, for as many days as each row was followed.
        overrides: replace single LightGBM parameters.

        BG/NBD is fitted separately to the rows of each cutoff, so that no row uses later data.
        """
        churned = outcomes.read_churned(label)
        base_rate = float(outcomes.select_labelled(frame, churned, horizon_days)[1].mean())
        bgnbd_by_cutoff = seasonal_bg_nbd.fit_bgnbd_by_cutoff(frame)
        fitted = cls(
            feature_columns(frame),
            bgnbd_by_cutoff[max(bgnbd_by_cutoff)],
            PeriodHazard.fit(frame, *_follow_up(label, horizon_days), bgnbd_by_cutoff, seed=seed, **overrides),
            _fit_logistic(frame, churned, horizon_days, bgnbd_by_cutoff, seed),
            horizon_days,
            base_rate,
        )
        return fitted._recalibrated(
            frame, seasonal_bg_nbd.past_predictions(frame, churned, horizon_days, bgnbd_by_cutoff)
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon from each row's as_of): array (n,)."""
        probability = expit(self.level(self._log_odds(frame)))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Effect of each feature in log odds, against the average: array (n, features); + is towards no purchase.

        BG/NBD's part is attributed to columns purchase_days (low frequency) and recency_days (days since the last
        purchase).
        """
        parts, names = self.period_hazard.contributions(frame, self.bgnbd)
        logistic = self._logistic_contributions(frame)
        names = [*names, *self.columns, base.FREQUENCY_COLUMN, base.RECENCY_COLUMN]
        features = list(dict.fromkeys(names))
        to_feature = np.array([[name == feature for feature in features] for name in names], dtype=np.float64)
        totals = np.hstack([parts, logistic]) @ to_feature / 2 * self.level.slope
        return pd.DataFrame(totals, columns=features, index=frame.index)

    def population_average(self) -> float:
        """The share of active customers without a purchase within the horizon."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON.

        The JSON keeps the keys of version 0.4.0: rhythm, quarters and leanings.
        """
        self.period_hazard.save(folder)
        content = {name: getattr(self, name) for name in ("columns", "horizon_days", "base")}
        parts = {"rhythm": asdict(self.bgnbd), "season": self.season.to_dict(), "level": list(self.level)}
        models = {"quarters": self.period_hazard.to_dict(), "leanings": self.logistic.to_dict()}
        write_json(folder / MODEL_FILE, content | parts | models)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the JSON back."""
        saved = read_json(folder / MODEL_FILE)
        return cls(
            bgnbd=bg_nbd.BgNbd(**saved.pop("rhythm")),
            period_hazard=PeriodHazard.load(folder, saved.pop("quarters")),
            logistic=LogisticRegression.from_dict(saved.pop("leanings")),
            season=SeasonalCalibration.from_dict(saved.pop("season")),
            level=PlattScaling(*saved.pop("level")),
            **saved,
        )

    def _log_odds(self, frame: pd.DataFrame) -> Floats:
        logistic = self.logistic.linear_predictor(_logistic_design(frame, self.columns, self.bgnbd, self.horizon_days))
        log_odds: Floats = (self.period_hazard.no_purchase_log_odds(frame, self.bgnbd) + logistic) / 2
        return log_odds

    def _recalibrated(self, frame: pd.DataFrame, predictions: PastPredictions) -> Self:
        """The same model with the mean of BG/NBD after seasonal Platt scaling, at the latest cutoff."""
        latest_cutoff = predictions.cutoff.max()
        calibration = seasonal_calibration.fit_calibration(predictions, latest_cutoff, self.horizon_days)
        active_rows = base.latest_rows(frame)
        active_rows = active_rows[outcomes.is_active(active_rows, self.horizon_days)]
        expected_share = (
            expit(calibration.line(predictions.log_odds[predictions.cutoff == latest_cutoff])).mean()
            if len(active_rows)
            else self.base
        )
        slope = seasonal_calibration.slope_ratio(calibration, predictions)
        level = PlattScaling(
            platt_scaling.shift_to_mean(slope * self._log_odds(active_rows), float(expected_share)), slope
        )
        return replace(self, season=calibration, level=level)

    def _logistic_contributions(self, frame: pd.DataFrame) -> Floats:
        """Contributions of the logistic regression: (n, columns + 2).

        The last two columns are BG/NBD's frequency effect and recency effect.
        """
        design = _logistic_design(frame, self.columns, self.bgnbd, self.horizon_days)
        summary = bg_nbd.purchase_summary(frame)
        bought_today = design.copy()
        bought_today[:, ODDS_COLUMNS] = _hinge_terms(
            self.bgnbd.no_purchase_log_odds_parts(summary, self.horizon_days)[0]
        )
        parts, bought_today_parts = self.logistic.contributions(design), self.logistic.contributions(bought_today)
        frequency_effect = bought_today_parts[:, ODDS_COLUMNS].sum(axis=1)
        recency_effect = parts[:, ODDS_COLUMNS].sum(axis=1) - frequency_effect
        return np.column_stack(
            [
                parts[:, RATE_COLUMN + 1 :],
                frequency_effect + parts[:, RATE_COLUMN],
                recency_effect + parts[:, ALIVE_COLUMN],
            ]
        )


def _follow_up(label: outcomes.ChurnLabel, horizon_days: int) -> tuple[pd.DataFrame, Ints]:
    """Follow-up of each row and the period edges; outcomes without durations make the horizon one period."""
    if isinstance(label, pd.DataFrame):
        return label, person_periods.period_edges(horizon_days)
    churned = outcomes.read_churned(label)
    days = np.where(np.isfinite(churned), float(horizon_days), 0.0)
    return pd.DataFrame({"duration_days": days, "observed": churned == 0}), np.array([0, horizon_days])


def _fit_logistic(
    frame: pd.DataFrame, churned: Floats, horizon_days: int, bgnbd_by_cutoff: BgNbdByCutoff, seed: int
) -> LogisticRegression:
    """Fit within each cutoff: the offset of a row is the log odds of the churn share at its cutoff."""
    sampled = person_periods.sample_rows(outcomes.is_active(frame, horizon_days) & np.isfinite(churned), seed)
    rows, outcome = frame.iloc[sampled], churned[sampled]
    cutoff, columns = censored_durations.read_cutoffs(rows), feature_columns(frame)
    design = np.zeros((len(rows), RATE_COLUMN + 1 + len(columns)))
    base_log_odds = np.zeros(len(rows))
    for this_cutoff in np.unique(cutoff):
        mask = cutoff == this_cutoff
        design[mask] = _logistic_design(rows[mask], columns, bgnbd_by_cutoff[this_cutoff], horizon_days)
        base_log_odds[mask] = bg_nbd.log_odds((outcome[mask].sum() + outcome.mean()) / (mask.sum() + 1))
    fitted = LogisticRegression.fit(design, outcome, base_log_odds)
    return fitted.with_shift(float(base_log_odds.mean()))


def _logistic_design(frame: pd.DataFrame, columns: list[str], bgnbd: bg_nbd.BgNbd, horizon_days: int) -> Floats:
    summary = bg_nbd.purchase_summary(frame)
    log_odds = bg_nbd.log_odds(bgnbd.p_no_purchase(*summary, horizon_days))
    terms = np.column_stack([_hinge_terms(log_odds), bgnbd.p_alive(*summary), bgnbd.rate(summary.x, summary.T)])
    return np.hstack([terms, logistic_regression.signed_log(matrix(frame, columns))])


def _hinge_terms(log_odds: Floats) -> Floats:
    """Log odds and two non-linear terms: array (n, 3).

    Customers whom BG/NBD considers inactive return more often than it predicts.
    """
    return np.column_stack([log_odds, np.maximum(log_odds, 0.0), log_odds**2 / 10])
