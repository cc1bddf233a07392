"""The offers task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData

#: How far back campaigns are judged: new ones start every few weeks and run for five or more.
OFFER_DAYS = 63
#: Fewer lists with a redemption than this say nothing about which of two models is better.
MIN_LISTS = 30


# Offers: which of them are redeemed -------------------------------------------------------------------------


def offer_window_days(training_data: TrainingData) -> int:
    """Long enough for several campaigns to start in it."""
    return max(1, min(OFFER_DAYS, training_data.calendar.history_days // 4))


def label_redemptions(training_data: TrainingData, rows: Frame, until: date) -> np.ndarray:
    return labels.redeemed(
        rows, training_data.redemptions, training_data.offers, calendar=training_data.calendar, until=until
    )


def evaluate_offers(training_data: TrainingData, rows: Frame, redeemed: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """By household and campaign: that is the list from which somebody chooses."""
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
    return np.isfinite(outcome)
