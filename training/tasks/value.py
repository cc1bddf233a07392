"""The value task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, TrainingData

# Value: what they will be worth ------------------------------------------------------------------------------


def value_window_days(training_data: TrainingData) -> int:
    """A third of the history at most: the same days must lie before the horizon that is judged, and before that."""
    return max(1, min(training_data.value_days, training_data.calendar.history_days // 3))


def label_spend(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    return labels.spend_so_far(
        rows,
        training_data.purchases,
        days=value_window_days(training_data),
        calendar=training_data.calendar,
        until=until,
    )


def is_window_complete(training_data: TrainingData, rows: Frame, outcome: Frame) -> np.ndarray:
    return outcome["days"].to_numpy() >= value_window_days(training_data)


def evaluate_value(training_data: TrainingData, rows: Frame, outcome: Frame, expected: np.ndarray) -> dict[str, float]:
    return metrics.value_metrics(outcome["spent"].to_numpy(np.float64), expected)
