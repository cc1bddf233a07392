"""Seasoned: what the rhythm of purchases says of churn, put right by what last year came of it."""

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
from models.churn import baselines as churn_baselines
from models.churn import seasonal_calibration
from models.churn.seasonal_calibration import PastPredictions, SeasonalCalibration
from models.survival import censored_durations
from models.survival import outcomes as survival_outcomes

#: The rhythm of each moment, fitted to its own rows.
BgNbdByCutoff = dict[np.datetime64, bg_nbd.BgNbd]


@dataclass(frozen=True)
class SeasonalBgNbdChurn:
    """BG/NBD's P(no purchase within the horizon) on the season's line: the textbook where it is served.

    Needs outcomes only for the line; without them it is BG/NBD.
    """

    rhythm: bg_nbd.BgNbd
    horizon_days: int
    base: float
    season: SeasonalCalibration

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, label: survival_outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28
    ) -> Self:
        """Fit the rhythm of the latest moment's customers, and the line to what came of earlier ones'."""
        bgnbd_by_cutoff = fit_bgnbd_by_cutoff(frame)
        predictions = past_predictions(frame, survival_outcomes.read_churned(label), horizon_days, bgnbd_by_cutoff)
        baseline = churn_baselines.BgNbdChurn.fit(frame, label, horizon_days=horizon_days)
        latest_cutoff = max(bgnbd_by_cutoff)
        return cls(
            bgnbd_by_cutoff[latest_cutoff],
            horizon_days,
            baseline.base,
            seasonal_calibration.fit_calibration(predictions, latest_cutoff, horizon_days),
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        odds = bg_nbd.log_odds(self.rhythm.p_no_purchase(*bg_nbd.purchase_summary(frame), self.horizon_days))
        return np.clip(expit(self.season.line(odds)), bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rare visits and the present silence, in log odds against the usual; + is towards no purchase."""
        frequency_effect, recency_effect = self.rhythm.no_purchase_log_odds_parts(
            bg_nbd.purchase_summary(frame), self.horizon_days
        )
        parts = {
            base.FREQUENCY_COLUMN: frequency_effect - bg_nbd.log_odds(self.base),
            base.RECENCY_COLUMN: recency_effect,
        }
        return pd.DataFrame(parts, index=frame.index) * self.season.line.slope

    def population_average(self) -> float:
        """The share of all outcomes that were quiet."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the parameters and the line."""
        own = {"rhythm": asdict(self.rhythm), "horizon_days": self.horizon_days, "base": self.base}
        write_json(folder / MODEL_FILE, own | {"season": self.season._asdict()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters and the line back."""
        saved = read_json(folder / MODEL_FILE)
        bgnbd, calibration = bg_nbd.BgNbd(**saved["rhythm"]), SeasonalCalibration.from_dict(saved["season"])
        return cls(bgnbd, saved["horizon_days"], saved["base"], calibration)


def fit_bgnbd_by_cutoff(frame: pd.DataFrame) -> BgNbdByCutoff:
    """The rhythm of each moment in the frame."""
    cutoff, summary = censored_durations.read_cutoffs(frame), bg_nbd.purchase_summary(frame)
    return {
        this_cutoff: bg_nbd.BgNbd.fit(*(part[cutoff == this_cutoff] for part in summary))
        for this_cutoff in np.unique(cutoff)
    }


def past_predictions(
    frame: pd.DataFrame, churned: Floats, horizon_days: int, bgnbd_by_cutoff: BgNbdByCutoff
) -> PastPredictions:
    """What the rhythm said of active customers at each moment, and what came of it."""
    cutoff, summary = censored_durations.read_cutoffs(frame), bg_nbd.purchase_summary(frame)
    odds, history_days = np.zeros(len(frame)), np.zeros(len(frame))
    for this_cutoff, bgnbd in bgnbd_by_cutoff.items():
        mask = cutoff == this_cutoff
        cutoff_summary = bg_nbd.PurchaseSummary(*(part[mask] for part in summary))
        odds[mask] = bg_nbd.log_odds(bgnbd.p_no_purchase(*cutoff_summary, horizon_days))
        history_days[mask] = cutoff_summary.T.max() + 1
    return PastPredictions(cutoff, odds, churned, history_days).subset(survival_outcomes.is_active(frame, horizon_days))
