"""Lapsed categories: what a customer bought regularly and has left out of all recent baskets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

#: A category is a habit when bought on at least this many days, over at least this many days.
HABIT_PURCHASES, HABIT_DAYS = 5, 28
#: Usual gaps without a purchase; by chance, one habit in fifty misses this many.
MIN_MISSED_GAPS = 4.0
#: A category that lapsed longer ago is not reported.
MAX_LAPSED_DAYS = 120


def find_lapsed(frame: pd.DataFrame, hidden: Collection[str] = ()) -> Mapping[int, Sequence[tuple[str, float]]]:
    """The lapsed categories by row of the frame, each with the days since its last purchase, most bought first.

    frame: the list columns of features.families.category_history and the column recency_days, a row per customer. A
    category is lapsed if at the last visit it had been missing for longer than ever before, for at least HABIT_DAYS
    days and for MIN_MISSED_GAPS usual gaps. Categories in `hidden` are never returned.
    """
    from features.families import category_history  # imported here: Ibis is slow to load

    pairs = category_history.explode_lists(frame.assign(customer_key=np.arange(len(frame))))
    skipped_days = pairs["need_recency_days"] - pairs["recency_days"]
    missed_gaps = skipped_days / pairs["need_gap_mean_days"]
    habit_length_days = pairs["need_first_days"] - pairs["need_recency_days"]
    is_habit = (pairs["need_times"] >= HABIT_PURCHASES) & (habit_length_days >= HABIT_DAYS)
    is_lapsed = (
        is_habit
        & (skipped_days >= HABIT_DAYS)
        & (missed_gaps >= MIN_MISSED_GAPS)
        & (skipped_days > pairs["need_gap_max_days"])
    )
    is_lapsed &= (pairs["need_recency_days"] <= MAX_LAPSED_DAYS) & ~pairs["category"].isin(list(hidden))
    lapsed = pairs[is_lapsed].sort_values(["need_times", "category"], ascending=[False, True])
    lapsed_by_row: dict[int, list[tuple[str, float]]] = {}
    for row, name, days in zip(
        *(lapsed[column].tolist() for column in ("customer_key", "category", "need_recency_days")), strict=True
    ):
        lapsed_by_row.setdefault(row, []).append((name, days))
    return lapsed_by_row
