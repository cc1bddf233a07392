"""The churn task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from models.survival import outcomes
from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData


def label_churn(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    """Columns churned (1 for no purchase within churn_days), duration_days and observed; one row per row of `rows`.

    Follow-up times are given too, since a learner can use a part of the horizon.
    """
    days, calendar = training_data.churn_days, training_data.calendar
    has_churned = labels.churned(rows, training_data.purchases, days=days, calendar=calendar, until=until)
    return labels.time_to_next_purchase(rows, training_data.purchases, calendar=calendar, until=until).assign(
        churned=has_churned
    )


def is_active_and_labelled(training_data: TrainingData, rows: Frame, outcome: Frame) -> np.ndarray:
    """Mask (n,) of active rows with a label.

    Customers who left long ago are easy to predict and would improve the metrics.
    """
    return np.isfinite(outcome["churned"].to_numpy()) & outcomes.is_active(rows, training_data.churn_days)


def evaluate_churn(training_data: TrainingData, rows: Frame, outcome: Frame, p: np.ndarray) -> dict[str, float]:
    """Probability metrics of p (n,), the predicted P(no purchase within churn_days)."""
    return metrics.probability_metrics(outcome["churned"].to_numpy(np.float64), p)
