"""The churn task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData

# Churn: who is drifting away -----------------------------------------------------------------------------------


def label_churn(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    """Whether they stayed away for the horizon, and how long they were watched: part of a horizon teaches too."""
    days, calendar = training_data.churn_days, training_data.calendar
    has_churned = labels.churned(rows, training_data.purchases, days=days, calendar=calendar, until=until)
    return labels.time_to_next_purchase(rows, training_data.purchases, calendar=calendar, until=until).assign(
        quiet=has_churned
    )


def is_active_and_labelled(training_data: TrainingData, rows: Frame, outcome: Frame) -> np.ndarray:
    """Customers everyone knows are gone would flatter the figures: only those seen in the last two horizons count."""
    return np.isfinite(outcome["quiet"].to_numpy()) & (rows["recency_days"].to_numpy() <= 2 * training_data.churn_days)


def evaluate_churn(training_data: TrainingData, rows: Frame, outcome: Frame, p: np.ndarray) -> dict[str, float]:
    return metrics.probability_metrics(outcome["quiet"].to_numpy(np.float64), p)
