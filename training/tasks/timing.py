"""The timing task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np

from models.survival import outcomes
from training import labels
from training.evaluation import metrics
from training.tasks.task import Frame, Incomparable, TrainingData


def timing_window_days(training_data: TrainingData) -> int:
    """Length of the hold-out in days: follow_up_days, or a quarter of the history."""
    return max(1, min(training_data.follow_up_days, training_data.calendar.history_days // 4))


def curve_days(training_data: TrainingData) -> int:
    """Length of the survival curve in days: 180, or half the history."""
    return max(1, min(180, training_data.calendar.history_days // 2))


def label_time_to_purchase(training_data: TrainingData, rows: Frame, until: date) -> Frame:
    """Days to the next purchase, right-censored at `until`: columns duration_days, observed."""
    return labels.time_to_next_purchase(rows, training_data.purchases, calendar=training_data.calendar, until=until)


def is_active_with_follow_up(training_data: TrainingData, rows: Frame, durations: Frame) -> np.ndarray:
    """Mask (n,) of active rows with a follow-up."""
    return (durations["duration_days"].to_numpy() > 0) & outcomes.is_active(rows, training_data.churn_days)


def evaluate_survival_curves(
    training_data: TrainingData, rows: Frame, durations: Frame, survival: np.ndarray
) -> dict[str, float]:
    """Survival metrics of curves (n, n_days), P(T > d) for d = 1 to n_days.

    The primary metric `crps_levelled` recalibrates all curves to one level at churn_days, since served curves are
    recalibrated to the churn model there. Raises Incomparable for curves shorter than the hold-out.
    """
    follow_up_days = timing_window_days(training_data)
    if survival.shape[1] < follow_up_days:
        raise Incomparable(f"its curve ends after {survival.shape[1]} days, this run needs {follow_up_days}")
    return metrics.survival_metrics(
        durations["duration_days"].to_numpy(np.float64),
        durations["observed"].to_numpy(bool),
        survival,
        follow_up_days,
        level_day=training_data.churn_days,
    )
