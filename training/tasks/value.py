"""The value task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData


def value_window_days(training_data: TrainingData) -> int:
    """Length of the hold-out in days: value_days, at most a third of the history.

    Two more windows of that length must fit before the hold-out: one to learn from, and one before it.
    """
    return max(1, min(training_data.value_days, training_data.calendar.history_days // 3))


def label_spend(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    """Spend in the window from as_of: columns spent, days (how many are over by `until`)."""
    return labels.spend_so_far(
        rows,
        training_data.purchases,
        days=value_window_days(training_data),
        calendar=training_data.calendar,
        until=until,
    )


def is_window_complete(training_data: TrainingData, rows: Frame, outcome: Frame) -> np.ndarray:
    """Mask (n,) of rows whose whole window is over."""
    return outcome["days"].to_numpy() >= value_window_days(training_data)


def evaluate_value(training_data: TrainingData, rows: Frame, outcome: Frame, expected: np.ndarray) -> dict[str, float]:
    """Value metrics of expected spend (n,) in the window."""
    return metrics.value_metrics(outcome["spent"].to_numpy(np.float64), expected)
