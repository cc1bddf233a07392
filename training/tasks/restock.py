"""The restock task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from models.restock import category_bg_nbd
from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData

#: Horizons in days; evaluation uses the middle one.
RESTOCK_DAYS = (7, 14, 28)


def label_repurchases(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    """Whether the customer buys from the category again: columns within_DAYS, one per horizon; 1, 0 or NaN."""
    return labels.repurchased_within(
        rows, training_data.category_days, horizons=RESTOCK_DAYS, calendar=training_data.calendar, until=until
    )


def is_regular_category(training_data: TrainingData, rows: Frame, outcome: Frame) -> np.ndarray:
    """Mask (n,) of rows with a complete label in a category that the customer replenishes.

    Categories bought once or long ago are easy to predict and would improve the metrics.
    """
    is_complete = np.isfinite(outcome[f"within_{RESTOCK_DAYS[1]}"].to_numpy())
    return is_complete & category_bg_nbd.is_replenishment(rows)


def evaluate_restock(
    training_data: TrainingData, rows: Frame, outcome: Frame, probabilities: np.ndarray
) -> dict[str, float]:
    """Probability metrics of the middle horizon; probabilities: (n, 3), one column per horizon of RESTOCK_DAYS."""
    return metrics.probability_metrics(outcome[f"within_{RESTOCK_DAYS[1]}"].to_numpy(), probabilities[:, 1])
