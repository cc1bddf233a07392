"""Churn: who will not buy within the horizon, starting from how long a silence is usual for each customer."""

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
from models.survival import censored_durations
from models.survival import outcomes as survival_outcomes
from models.survival.censored_durations import Ints

#: What the rhythm adds to the features that lean: three terms of its log odds, the chance to be there still, the rate.
ODDS_COLUMNS, ALIVE_COLUMN, RATE_COLUMN = range(3), 3, 4


@dataclass(frozen=True)
class ChurnModel:
    """Two answers amid which the truth lies, on the scale of log odds, at the level that the season asks for.

    Trees grown on the rhythm (BG/NBD) say who stays away in each quarter of the horizon; leanings weigh every figure
    in proportion. Both tell the customers of one moment apart; how many of all stay away is the rhythm's to say, put
    right by what last year came of it. Learned from active customers (a purchase within two horizons); anybody can
    be scored.
    """

    columns: list[str]
    rhythm: bg_nbd.BgNbd
    quarters: PeriodHazard
    leanings: LogisticRegression
    horizon_days: int
    base: float
    season: SeasonalCalibration = NO_SEASON
    level: PlattScaling = IDENTITY

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: survival_outcomes.ChurnLabel,
        *,
        seed: int = 0,
        horizon_days: int = 28,
        **overrides: Any,
    ) -> Self:
        """Learn from every row of whose outcome something is known.

        label: 1 = no purchase in [as_of, as_of + horizon), 0 = at least one, NaN = not known yet; better, columns
        quiet (that), duration_days and observed, of as much as each row was watched. Every moment in the frame gets
        its own rhythm, fitted to its own rows: no row sees a later one's. `growth` overrides LightGBM's settings.
        """
        churned = survival_outcomes.read_churned(label)
        base = float(survival_outcomes.select_labelled(frame, churned, horizon_days)[1].mean())
        bgnbd_by_cutoff = seasonal_bg_nbd.fit_bgnbd_by_cutoff(frame)
        fitted = cls(
            feature_columns(frame),
            bgnbd_by_cutoff[max(bgnbd_by_cutoff)],
            PeriodHazard.fit(frame, *_follow_up(label, horizon_days), bgnbd_by_cutoff, seed=seed, **overrides),
            _fit_logistic(frame, churned, horizon_days, bgnbd_by_cutoff, seed),
            horizon_days,
            base,
        )
        return fitted._recalibrated(
            frame, seasonal_bg_nbd.past_predictions(frame, churned, horizon_days, bgnbd_by_cutoff)
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon of each row's as_of), a row each."""
        probability = expit(self.level(self._log_odds(frame)))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each feature moves each row from the usual, in log odds; + is towards no purchase.

        The rhythm's part counts as purchase_days (rare visits) and recency_days (the present silence).
        """
        parts, names = self.quarters.contributions(frame, self.rhythm)
        logistic = self._logistic_contributions(frame)
        names = [*names, *self.columns, base.FREQUENCY_COLUMN, base.RECENCY_COLUMN]
        features = list(dict.fromkeys(names))
        to_feature = np.array([[name == feature for feature in features] for name in names], dtype=np.float64)
        totals = np.hstack([parts, logistic]) @ to_feature / 2 * self.level.slope
        return pd.DataFrame(totals, columns=features, index=frame.index)

    def population_average(self) -> float:
        """The share of active customers who did not come back within the horizon."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.quarters.save(folder)
        content = {name: getattr(self, name) for name in ("columns", "horizon_days", "base")}
        parts = {"rhythm": asdict(self.rhythm), "season": self.season._asdict(), "level": list(self.level)}
        numbers = {"quarters": self.quarters.to_dict(), "leanings": self.leanings.to_dict()}
        write_json(folder / MODEL_FILE, content | parts | numbers)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / MODEL_FILE)
        saved["rhythm"], saved["season"] = (
            bg_nbd.BgNbd(**saved["rhythm"]),
            SeasonalCalibration.from_dict(saved["season"]),
        )
        saved["level"] = PlattScaling(*saved["level"])
        saved["quarters"] = PeriodHazard.load(folder, saved["quarters"])
        saved["leanings"] = LogisticRegression.from_dict(saved["leanings"])
        return cls(**saved)

    def _log_odds(self, frame: pd.DataFrame) -> Floats:
        logistic = self.leanings.linear_predictor(_logistic_design(frame, self.columns, self.rhythm, self.horizon_days))
        odds: Floats = (self.quarters.no_purchase_log_odds(frame, self.rhythm) + logistic) / 2
        return odds

    def _recalibrated(self, frame: pd.DataFrame, predictions: PastPredictions) -> Self:
        """The same with as many expected to stay away as the rhythm tells, put right by the season."""
        latest_cutoff = predictions.cutoff.max()
        calibration = seasonal_calibration.fit_calibration(predictions, latest_cutoff, self.horizon_days)
        active_rows = base.latest_rows(frame)
        active_rows = active_rows[survival_outcomes.is_active(active_rows, self.horizon_days)]
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
        """What the leanings add: a column a feature, then the rhythm's rare visits and present silence."""
        design = _logistic_design(frame, self.columns, self.rhythm, self.horizon_days)
        summary = bg_nbd.purchase_summary(frame)
        bought_today = design.copy()
        bought_today[:, ODDS_COLUMNS] = _hinge_terms(
            self.rhythm.no_purchase_log_odds_parts(summary, self.horizon_days)[0]
        )
        parts, bought_today_parts = self.leanings.contributions(design), self.leanings.contributions(bought_today)
        frequency_effect = bought_today_parts[:, ODDS_COLUMNS].sum(axis=1)
        recency_effect = parts[:, ODDS_COLUMNS].sum(axis=1) - frequency_effect
        return np.column_stack(
            [
                parts[:, RATE_COLUMN + 1 :],
                frequency_effect + parts[:, RATE_COLUMN],
                recency_effect + parts[:, ALIVE_COLUMN],
            ]
        )


def _follow_up(label: survival_outcomes.ChurnLabel, horizon_days: int) -> tuple[pd.DataFrame, Ints]:
    """How long each row was watched, and the parts of the horizon to ask for: of a fate alone the whole is one part."""
    if isinstance(label, pd.DataFrame):
        return label, person_periods.period_edges(horizon_days)
    churned = survival_outcomes.read_churned(label)
    days = np.where(np.isfinite(churned), float(horizon_days), 0.0)
    return pd.DataFrame({"duration_days": days, "observed": churned == 0}), np.array([0, horizon_days])


def _fit_logistic(
    frame: pd.DataFrame, churned: Floats, horizon_days: int, bgnbd_by_cutoff: BgNbdByCutoff, seed: int
) -> LogisticRegression:
    """Learned within each moment: a moment's own share of quiet customers is where its rows start."""
    sampled = person_periods.sample_rows(survival_outcomes.is_active(frame, horizon_days) & np.isfinite(churned), seed)
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
    odds = bg_nbd.log_odds(bgnbd.p_no_purchase(*summary, horizon_days))
    terms = np.column_stack([_hinge_terms(odds), bgnbd.p_alive(*summary), bgnbd.rate(summary.x, summary.T)])
    return np.hstack([terms, logistic_regression.signed_log(matrix(frame, columns))])


def _hinge_terms(odds: Floats) -> Floats:
    """Log odds, and two terms that bend them: customers taken for gone come back oftener than the rhythm says."""
    return np.column_stack([odds, np.maximum(odds, 0.0), odds**2 / 10])
