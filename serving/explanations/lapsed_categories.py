"""Dropped: what a customer used to buy often, and left on the shelf whenever they came of late."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from features.families import category_history

#: Bought on so many days over so many weeks it was a habit, and no week's whim.
HABIT_PURCHASES, HABIT_DAYS = 5, 28
#: So many usual gaps without it; chance leaves one in fifty.
MIN_MISSED_GAPS = 4.0
#: What was left behind longer ago is no news.
MAX_LAPSED_DAYS = 120


def find_lapsed(frame: pd.DataFrame, hidden: Collection[str] = ()) -> Mapping[int, Sequence[tuple[str, float]]]:
    """By place in the frame: the categories no longer bought and since how many days, the most bought first.

    frame has the lists of `features.families.category_history`, and `recency_days`: a category is left behind if at their last visit they
    had gone without it for longer than ever, and for MISSED of their usual gaps. `hidden` ones are never named.
    """
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
