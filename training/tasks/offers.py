"""The offers task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData

#: Length of the hold-out in days: new campaigns start every few weeks and run for five or more.
OFFER_DAYS = 63
#: With fewer lists with a redemption, the difference between two models is mostly noise.
MIN_LISTS = 30


def offer_window_days(training_data: TrainingData) -> int:
    """Length of the hold-out in days: long enough for several campaigns to start in it."""
    return max(1, min(OFFER_DAYS, training_data.calendar.history_days // 4))


def label_redemptions(training_data: TrainingData, rows: Frame, until: date) -> np.ndarray:
    """1 for a redeemed offer, 0 for one not redeemed, (n,); NaN where that is undecided (see labels.redeemed)."""
    return labels.redeemed(
        rows, training_data.redemptions, training_data.offers, calendar=training_data.calendar, until=until
    )


def evaluate_offers(training_data: TrainingData, rows: Frame, redeemed: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Ranking and calibration metrics of p (n,), the predicted P(redeemed).

    Offers are ranked within customer, as_of and campaign, since that is the list from which offers are chosen. `map` is
    NaN for fewer than MIN_LISTS lists with a redemption.
    """
    campaign = rows["offer_key"].map(
        training_data.offers.drop_duplicates("offer_key").set_index("offer_key")["campaign_id"]
    )
    keys = [rows["customer_key"], rows["as_of"], campaign.fillna("")]
    group = pd.MultiIndex.from_arrays(keys).factorize()[0]
    results = metrics.group_metrics(group, redeemed, p)
    if results["groups"] < MIN_LISTS:
        results["map"] = float("nan")
    calibration = metrics.probability_metrics(redeemed, p)
    return results | {name: calibration[name] for name in ("log_loss", "ece", "bias")}


def is_labelled(training_data: TrainingData, rows: Frame, outcome: np.ndarray) -> np.ndarray:
    """Mask (n,) of rows with a finite outcome."""
    return np.isfinite(outcome)
