"""BG/NBD with seasonal Platt scaling as a churn model, and the BG/NBD fits and past predictions it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import expit

from models import base
from models.base import MODEL_FILE, Floats, read_json, write_json
from models.btyd import bg_nbd
from models.churn import seasonal_calibration
from models.churn.baselines import BgNbdChurn
from models.churn.seasonal_calibration import PastPredictions, SeasonalCalibration
from models.survival import censored_durations, outcomes

#: BG/NBD by cutoff, each fitted to the rows of its cutoff only.
BgNbdByCutoff = dict[np.datetime64, bg_nbd.BgNbd]


@dataclass(frozen=True)
class SeasonalBgNbdChurn:
    """BG/NBD's P(no purchase within the horizon) after seasonal Platt scaling.

    Needs outcomes only for the calibration; without them it equals BG/NBD.
    """

    bgnbd: bg_nbd.BgNbd
    horizon_days: int
    base: float
    season: SeasonalCalibration

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Fit BG/NBD to the customers of the latest cutoff, and the calibration to the outcomes of earlier ones.

        label: (n,), or a frame with a column churned: 1 = no purchase within the horizon, 0 = at least one, NaN = not
            known yet.
        """
        bgnbd_by_cutoff = fit_bgnbd_by_cutoff(frame)
        predictions = past_predictions(frame, outcomes.read_churned(label), horizon_days, bgnbd_by_cutoff)
        baseline = BgNbdChurn.fit(frame, label, horizon_days=horizon_days)
        latest_cutoff = max(bgnbd_by_cutoff)
        return cls(
            bgnbd_by_cutoff[latest_cutoff],
            horizon_days,
            baseline.base,
            seasonal_calibration.fit_calibration(predictions, latest_cutoff, horizon_days),
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon): array (n,)."""
        log_odds = bg_nbd.log_odds(self.bgnbd.p_no_purchase(*bg_nbd.purchase_summary(frame), self.horizon_days))
        return np.clip(expit(self.season.line(log_odds)), bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Log odds against the base rate, in columns purchase_days and recency_days; + is towards no purchase."""
        frequency_effect, recency_effect = self.bgnbd.no_purchase_log_odds_parts(
            bg_nbd.purchase_summary(frame), self.horizon_days
        )
        parts = {
            base.FREQUENCY_COLUMN: frequency_effect - bg_nbd.log_odds(self.base),
            base.RECENCY_COLUMN: recency_effect,
        }
        return pd.DataFrame(parts, index=frame.index) * self.season.line.slope

    def population_average(self) -> float:
        """The share of known outcomes without a purchase; without outcomes, the mean prediction."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the parameters, under the keys of version 0.4.0, and the calibration."""
        content = {"rhythm": asdict(self.bgnbd), "horizon_days": self.horizon_days, "base": self.base}
        write_json(folder / MODEL_FILE, content | {"season": self.season.to_dict()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters and the calibration back."""
        saved = read_json(folder / MODEL_FILE)
        bgnbd, calibration = bg_nbd.BgNbd(**saved["rhythm"]), SeasonalCalibration.from_dict(saved["season"])
        return cls(bgnbd, saved["horizon_days"], saved["base"], calibration)


def fit_bgnbd_by_cutoff(frame: pd.DataFrame) -> BgNbdByCutoff:
    """One BG/NBD fit for each cutoff in column as_of, to the rows of that cutoff."""
    cutoff, summary = censored_durations.read_cutoffs(frame), bg_nbd.purchase_summary(frame)
    return {
        this_cutoff: bg_nbd.BgNbd.fit(*(part[cutoff == this_cutoff] for part in summary))
        for this_cutoff in np.unique(cutoff)
    }


def past_predictions(
    frame: pd.DataFrame, churned: Floats, horizon_days: int, bgnbd_by_cutoff: BgNbdByCutoff
) -> PastPredictions:
    """BG/NBD's predictions and the outcomes of active customers at each cutoff: one row per active row of frame.

    churned: (n,): 1, 0, or NaN while the outcome is not known.
    """
    cutoff, summary = censored_durations.read_cutoffs(frame), bg_nbd.purchase_summary(frame)
    log_odds, history_days = np.zeros(len(frame)), np.zeros(len(frame))
    for this_cutoff, bgnbd in bgnbd_by_cutoff.items():
        mask = cutoff == this_cutoff
        cutoff_summary = bg_nbd.PurchaseSummary(*(part[mask] for part in summary))
        log_odds[mask] = bg_nbd.log_odds(bgnbd.p_no_purchase(*cutoff_summary, horizon_days))
        history_days[mask] = cutoff_summary.T.max() + 1
    return PastPredictions(cutoff, log_odds, churned, history_days).subset(outcomes.is_active(frame, horizon_days))
