"""The timing task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, Incomparable, TrainingData


def timing_window_days(training_data: TrainingData) -> int:
    return max(1, min(training_data.follow_up_days, training_data.calendar.history_days // 4))


def curve_days(training_data: TrainingData) -> int:
    """Length of the purchase curve: 180 days, or half the history."""
    return max(1, min(180, training_data.calendar.history_days // 2))


# Timing: when they come back ------------------------------------------------------------------------------------


def label_time_to_purchase(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    return labels.time_to_next_purchase(rows, training_data.purchases, calendar=training_data.calendar, until=until)


def is_active_with_follow_up(training_data: TrainingData, rows: Frame, durations: Frame) -> np.ndarray:
    return (durations["duration_days"].to_numpy() > 0) & (
        rows["recency_days"].to_numpy() <= 2 * training_data.churn_days
    )


def evaluate_survival_curves(
    training_data: TrainingData, rows: Frame, durations: Frame, survival: np.ndarray
) -> dict[str, float]:
    """What decides is told at one level: customers hear of curves that are bent to churn's number anyway."""
    follow_up_days = timing_window_days(training_data)
    if survival.shape[1] < follow_up_days:
        raise Incomparable(f"its curve ends after {survival.shape[1]} days, this night watches {follow_up_days}")
    return metrics.survival_metrics(
        durations["duration_days"].to_numpy(np.float64), durations["observed"].to_numpy(bool), survival, follow_up_days,
        level_day=training_data.churn_days,
    )  # fmt: skip
