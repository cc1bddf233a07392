"""Dropped: what a customer used to buy often, and left on the shelf whenever they came of late."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from features import needs

#: Bought on so many days it was a habit; of so many usual gaps without it, chance leaves one in fifty.
HABIT_TIMES, MISSED = 5, 4.0
#: What was left behind longer ago is history.
FARTHEST_DAYS = 365


def categories(frame: pd.DataFrame, hidden: Collection[str] = ()) -> Mapping[int, Sequence[tuple[str, float]]]:
    """By place in the frame: the categories no longer bought and since how many days, the surest first.

    frame has the lists of `features.needs`, and `recency_days`: a category is left behind if at their last visit they
    had gone without it for longer than ever, and for MISSED of their usual gaps. `hidden` ones are never named.
    """
    pairs = needs.pairs(frame.assign(customer_key=np.arange(len(frame))))
    silent = pairs["need_recency_days"] - pairs["recency_days"]
    missed = silent / pairs["need_gap_mean_days"]
    left = (pairs["need_times"] >= HABIT_TIMES) & (missed >= MISSED) & (silent > pairs["need_gap_max_days"])
    left &= (pairs["need_recency_days"] <= FARTHEST_DAYS) & ~pairs["category"].isin(list(hidden))
    found = pairs[left].assign(missed=missed[left]).sort_values(["missed", "category"], ascending=[False, True])
    named: dict[int, list[tuple[str, float]]] = {}
    for place, name, days in zip(
        *(found[column].tolist() for column in ("customer_key", "category", "need_recency_days")), strict=True
    ):
        named.setdefault(place, []).append((name, days))
    return named
