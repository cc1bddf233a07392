"""Visit history: the days on which a customer bought, the gaps between them, and the time since the last."""

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
class ShopVisit:
    """A day with a purchase, and the amount paid on it."""

    day: date
    spent: float


@dataclass(frozen=True)
class VisitHistory:
    """The visits of a customer up to today, in order; at least one."""

    visits: Sequence[ShopVisit]
    today: date

    @cached_property
    def gap_days(self) -> list[int]:
        """Days between one visit and the next."""
        days = [visit.day for visit in self.visits]
        return [(after - before).days for before, after in pairwise(days)]

    @property
    def last_day(self) -> date:
        """The day of the last visit."""
        return self.visits[-1].day

    @property
    def silent_days(self) -> int:
        """Days from the last visit to today."""
        return (self.today - self.last_day).days

    @property
    def median_gap_days(self) -> float | None:
        """The median gap in days; None after a single visit."""
        return median(self.gap_days) if self.gap_days else None

    @property
    def longest_gap_days(self) -> int | None:
        """The longest gap between two visits, in days; None after a single visit."""
        return max(self.gap_days, default=None)

    @property
    def gap_status(self) -> str:
        """The time since the last visit against the gaps: "usual", "longer" than the median, or "longest" of all."""
        if self.median_gap_days is None or self.silent_days <= self.median_gap_days:
            return "usual"
        return "longer" if self.silent_days <= (self.longest_gap_days or 0) else "longest"

    def visits_since(self, start: date) -> list[ShopVisit]:
        """The visits on or after a day."""
        return [visit for visit in self.visits if visit.day >= start]


def build_visit_history(lines: pa.Table, *, zone: ZoneInfo, today: date) -> VisitHistory | None:
    """Build the visit history of one customer from the current lines of the ledger; None without a purchase.

    lines: columns sold_at, superseded_at, kind, amount (the shop's currency; null for others), a row per line. A day
    counts if more was paid than returned, or something was sold in another currency; the features count the same way.
    """
    frame = lines.select(["sold_at", "superseded_at", "kind", "amount"]).to_pandas()
    frame = frame[frame["superseded_at"].isna()]
    is_sale = frame["kind"] == "sale"
    by_day = pd.DataFrame(
        {
            "day": frame["sold_at"].dt.tz_convert(zone).dt.date,
            "paid": np.nan_to_num(np.where(is_sale, frame["amount"], -frame["amount"].abs())),
            "unpriced": is_sale & frame["amount"].isna(),
        }
    )
    days = by_day.groupby("day").agg(paid=("paid", "sum"), unpriced=("unpriced", "any"))
    purchase_days = days[((days["paid"] > 5e-5) | days["unpriced"]) & (days.index <= today)]
    visits = [
        ShopVisit(day, paid)
        for day, paid in zip(purchase_days.index.tolist(), purchase_days["paid"].tolist(), strict=True)
    ]
    return VisitHistory(visits, today) if visits else None
