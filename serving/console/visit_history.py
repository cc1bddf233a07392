"""Visiting: on which days a customer bought, the gaps between them, and today's silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from statistics import median
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Visit:
    """A day on which something was bought, and what was paid in all."""

    day: date
    spent: float


@dataclass(frozen=True)
class Rhythm:
    """A customer's visits up to today, in order; there is at least one."""

    visits: Sequence[Visit]
    today: date

    @cached_property
    def gaps(self) -> list[int]:
        """Days between one visit and the next."""
        days = [visit.day for visit in self.visits]
        return [(after - before).days for before, after in pairwise(days)]

    @property
    def last(self) -> date:
        """The day of the last visit."""
        return self.visits[-1].day

    @property
    def silent_days(self) -> int:
        """Days from the last visit to today."""
        return (self.today - self.last).days

    @property
    def usual_gap(self) -> float | None:
        """The gap that half of the gaps exceed; None after a single visit."""
        return median(self.gaps) if self.gaps else None

    @property
    def longest_gap(self) -> int | None:
        """The longest that they ever stayed away and came back."""
        return max(self.gaps, default=None)

    @property
    def mood(self) -> str:
        """How today's silence compares: as usual, longer than usual, or longer than ever."""
        if self.usual_gap is None or self.silent_days <= self.usual_gap:
            return "usual"
        return "longer" if self.silent_days <= (self.longest_gap or 0) else "longest"

    def since(self, start: date) -> list[Visit]:
        """The visits from a day on."""
        return [visit for visit in self.visits if visit.day >= start]


def rhythm(lines: pa.Table, *, zone: ZoneInfo, today: date) -> Rhythm | None:
    """The rhythm in one customer's lines as they stand now; None without a purchase.

    A day counts where more was paid than returned, or something was sold in a currency that is not the shop's:
    the features count so too.
    """
    frame = lines.select(["sold_at", "superseded_at", "kind", "amount"]).to_pandas()
    frame = frame[frame["superseded_at"].isna()]
    sale = frame["kind"] == "sale"
    by_day = pd.DataFrame(
        {
            "day": frame["sold_at"].dt.tz_convert(zone).dt.date,
            "paid": np.nan_to_num(np.where(sale, frame["amount"], -frame["amount"].abs())),
            "unpriced": sale & frame["amount"].isna(),
        }
    )
    days = by_day.groupby("day").agg(paid=("paid", "sum"), unpriced=("unpriced", "any"))
    bought = days[((days["paid"] > 5e-5) | days["unpriced"]) & (days.index <= today)]
    visits = [Visit(day, paid) for day, paid in zip(bought.index.tolist(), bought["paid"].tolist(), strict=True)]
    return Rhythm(visits, today) if visits else None
