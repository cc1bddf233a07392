"""The restock task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from models.restock import category_bg_nbd
from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData

#: How far ahead needs are foretold; they are judged at the middle one.
RESTOCK_DAYS = (7, 14, 28)


# Restock: when a category runs out ---------------------------------------------------------------------------


def label_repurchases(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    return labels.repurchased_within(
        rows, training_data.category_days, horizons=RESTOCK_DAYS, calendar=training_data.calendar, until=until
    )


def is_regular_category(training_data: TrainingData, rows: Frame, outcome: Frame) -> np.ndarray:
    """What somebody bought once or long ago is no need that runs out; it would flatter the figures."""
    is_complete = np.isfinite(outcome[f"within_{RESTOCK_DAYS[1]}"].to_numpy())
    return is_complete & category_bg_nbd.is_replenishment(rows)


def evaluate_restock(
    training_data: TrainingData, rows: Frame, outcome: Frame, probabilities: np.ndarray
) -> dict[str, float]:
    return metrics.probability_metrics(outcome[f"within_{RESTOCK_DAYS[1]}"].to_numpy(), probabilities[:, 1])
