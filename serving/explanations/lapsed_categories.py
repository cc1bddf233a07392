"""Dropped: what a customer used to buy often, and left on the shelf whenever they came of late."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from features import needs

#: Bought on so many days over so many weeks it was a habit, and no week's whim.
HABIT_TIMES, HABIT_DAYS = 5, 28
#: So many usual gaps without it; chance leaves one in fifty.
MISSED = 4.0
#: What was left behind longer ago is no news.
FARTHEST_DAYS = 120


def categories(frame: pd.DataFrame, hidden: Collection[str] = ()) -> Mapping[int, Sequence[tuple[str, float]]]:
    """By place in the frame: the categories no longer bought and since how many days, the most bought first.

    frame has the lists of `features.needs`, and `recency_days`: a category is left behind if at their last visit they
    had gone without it for longer than ever, and for MISSED of their usual gaps. `hidden` ones are never named.
    """
    pairs = needs.pairs(frame.assign(customer_key=np.arange(len(frame))))
    silent = pairs["need_recency_days"] - pairs["recency_days"]
    missed = silent / pairs["need_gap_mean_days"]
    lasted = pairs["need_first_days"] - pairs["need_recency_days"]
    habit = (pairs["need_times"] >= HABIT_TIMES) & (lasted >= HABIT_DAYS)
    left = habit & (silent >= HABIT_DAYS) & (missed >= MISSED) & (silent > pairs["need_gap_max_days"])
    left &= (pairs["need_recency_days"] <= FARTHEST_DAYS) & ~pairs["category"].isin(list(hidden))
    found = pairs[left].sort_values(["need_times", "category"], ascending=[False, True])
    named: dict[int, list[tuple[str, float]]] = {}
    for place, name, days in zip(
        *(found[column].tolist() for column in ("customer_key", "category", "need_recency_days")), strict=True
    ):
        named.setdefault(place, []).append((name, days))
    return named
