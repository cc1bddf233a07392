"""Charts: positions of the lines, dots and labels of two SVG drawings, which the templates render.

Positions are in the units of the drawing's viewBox. Each chart is drawn twice, for a wide page and for a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import median

from serving.console.formatting import MONTHS, format_percent, format_short_day
from serving.console.visit_history import ShopVisit, VisitHistory

YEAR_DAYS = 365
#: At least this much time is shown, so that the few visits of a new customer do not fill the page.
MIN_DAYS = 90
#: The next visit is drawn up to this far ahead; a later one appears in text only.
AHEAD_DAYS = 30

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ChartLabel:
    """A text at a position; `anchor` is its SVG text-anchor."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class ChartDot:
    """A circle, with its tooltip text."""

    x: float
    y: float
    r: float
    text: str


# Visit timeline -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VisitTimeline:
    """A year of visits as dots on a line of days, with an arc per gap: the longer the gap, the higher its arc.

    The time since the last visit is the open arc.
    """

    width: int
    height: int
    baseline_y: float
    gap_arcs: str
    dots: list[ChartDot]
    open_gap_arc: str
    expected_arc: str | None
    expected_dot: ChartDot | None
    median_gap_y: float | None
    today_x: float
    months: list[ChartLabel]


def draw_visit_timeline(
    history: VisitHistory, *, width: int, expected_day: date | None, height: int = 150
) -> VisitTimeline:
    """Lay out the visit timeline; `expected_day` is the day by which P(next visit) reaches 0.5."""
    scale = _build_day_scale(history, width, height - 28.0)
    visits = history.visits_since(scale.start)
    days_ahead = (expected_day - history.today).days if expected_day else -1
    shown_day = expected_day if 0 <= days_ahead <= AHEAD_DAYS else None
    median_gap = history.median_gap_days
    return VisitTimeline(
        width=width,
        height=height,
        baseline_y=scale.baseline_y,
        gap_arcs="".join(scale.arc_path(begin, end) for begin, end in _visit_pairs(visits)),
        dots=list(_draw_dots(visits, scale)),
        open_gap_arc=scale.arc_path(history.last_day, history.today),
        expected_arc=scale.arc_path(history.today, shown_day) if shown_day else None,
        expected_dot=ChartDot(
            scale.x(shown_day), scale.baseline_y, 4.5, f"as likely as not by {format_short_day(shown_day)}"
        )
        if shown_day
        else None,
        median_gap_y=scale.baseline_y - scale.arc_height(median_gap) if median_gap else None,
        today_x=scale.x(history.today),
        months=list(_draw_month_labels(scale, height - 8.0)),
    )


@dataclass(frozen=True, slots=True)
class _DayScale:
    """Horizontal scale of days, with space above for the arcs and on the right for the days ahead."""

    start: date
    today: date
    longest_gap_days: float
    width: int
    baseline_y: float
    top_y: float = 14.0
    margin: float = 10.0

    @property
    def span_days(self) -> int:
        return (self.today - self.start).days + AHEAD_DAYS

    def x(self, day: date) -> float:
        return self.margin + (day - self.start).days / self.span_days * (self.width - 2 * self.margin)

    def arc_height(self, gap_days: float) -> float:
        """Arc height of a gap: the power 0.8 of its length, so that the longest gap does not flatten all others."""
        return float((self.baseline_y - self.top_y) * min(gap_days / self.longest_gap_days, 1.0) ** 0.8)

    def arc_path(self, begin: date, end: date) -> str:
        """SVG path of the arc between two days; for a gap that began before the drawing, its falling half."""
        height, right = self.arc_height((end - begin).days), self.x(end)
        arc_end = f"0 0 1 {right:.1f} {self.baseline_y}"
        if begin < self.start:
            radius = right - self.margin
            return f"M{self.margin:.1f} {self.baseline_y - height:.1f}A{radius:.1f} {height:.1f} {arc_end}"
        radius = (right - self.x(begin)) / 2
        return f"M{self.x(begin):.1f} {self.baseline_y}A{radius:.1f} {height:.1f} {arc_end}"


def _build_day_scale(history: VisitHistory, width: int, baseline_y: float) -> _DayScale:
    """The scale from a year ago, or for a newer customer from a week before the first visit."""
    first = max(history.visits[0].day - timedelta(days=7), history.today - timedelta(days=YEAR_DAYS))
    start = min(first, history.today - timedelta(days=MIN_DAYS))
    gap_days = [(end - begin).days for begin, end in _visit_pairs(history.visits_since(start))]
    longest_gap_days = max([*gap_days, history.silent_days, history.median_gap_days or 0, 7])
    return _DayScale(start, history.today, longest_gap_days, width, baseline_y)


def _visit_pairs(visits: Sequence[ShopVisit]) -> list[tuple[date, date]]:
    return [(before.day, after.day) for before, after in pairwise(visits)]


def _draw_dots(visits: Sequence[ShopVisit], scale: _DayScale) -> Iterator[ChartDot]:
    """A dot per visit, its area proportional to the amount paid; smaller dots where there are many visits."""
    median_spent = median(visit.spent for visit in visits) if visits else 0.0
    shrink = min(1.0, math.sqrt(scale.width / (10.0 * max(len(visits), 1))))
    for visit in visits:
        size = math.sqrt(max(visit.spent, 0.0) / median_spent) if median_spent > 0 else 1.0
        yield ChartDot(
            scale.x(visit.day), scale.baseline_y, (1.2 + 2.2 * min(size, 2.2)) * shrink, format_short_day(visit.day)
        )


def _draw_month_labels(scale: _DayScale, y: float) -> Iterator[ChartLabel]:
    """Labels at the first of each month, as many as fit; January is labelled with its year."""
    step = next((n for n in (1, 2, 3, 6) if scale.width * 30.4 * n / scale.span_days >= 44), 12)
    for number in range(1, scale.span_days // 28 + 2):
        year, month = divmod(scale.start.month - 1 + number, 12)
        month_start = date(scale.start.year + year, month + 1, 1)
        if month % step == 0 and scale.x(month_start) <= scale.width - 14:
            yield ChartLabel(scale.x(month_start), y, MONTHS[month] if month else str(month_start.year))


# Purchase curve -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PurchaseCurve:
    """The cumulative probability of a purchase by day, with its quantiles marked."""

    width: int
    height: int
    line: str
    area: str
    left: float
    right: float
    baseline_y: float
    gridlines: list[ChartLabel]
    ticks: list[ChartLabel]
    marks: list[ChartDot]
    labels: list[ChartLabel]


AXIS_ENDS_DAYS = (14, 28, 42, 56, 90, 120, 180)
QUANTILE_SHARES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
QUANTILE_TEXTS = {"p10": "1 in 10", "p50": "half", "p90": "9 in 10"}


def draw_purchase_curve(
    cdf: Sequence[float], days: dict[str, int | None], *, first: date, width: int, height: int = 240
) -> PurchaseCurve:
    """Lay out the curve; cdf[0] is P(purchase on the day `first`), cdf[d - 1] that within d days."""
    last = _last_day(len(cdf), days)
    left, right, baseline_y, top_y = 40.0, width - 16.0, height - 26.0, 14.0

    def at(day: float, share: float) -> Point:
        return left + (right - left) * day / last, baseline_y - (baseline_y - top_y) * share

    points = [at(0, 0.0), *(at(day, cdf[day - 1]) for day in range(1, last + 1))]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    shown_quantiles = {name: day for name, day in days.items() if day is not None and day <= last}
    marks = [
        ChartDot(*at(_crossing_day(cdf, QUANTILE_SHARES[name]), QUANTILE_SHARES[name]), 4.0, "")
        for name in shown_quantiles
    ]
    return PurchaseCurve(
        width=width,
        height=height,
        line=line,
        area=f"{line}L{right:.1f} {baseline_y:.1f}L{left:.1f} {baseline_y:.1f}Z",
        left=left,
        right=right,
        baseline_y=baseline_y,
        gridlines=[ChartLabel(left, at(0, share)[1], format_percent(share), "end") for share in (0.1, 0.5, 0.9)],
        ticks=[ChartLabel(at(day, 0)[0], height - 8.0, f"{day} d") for day in _tick_days(last, width)],
        marks=marks,
        labels=[
            _place_label(
                mark, f"{QUANTILE_TEXTS[name]} by {format_short_day(first + timedelta(days=day - 1))}", left, right
            )
            for mark, (name, day) in zip(marks, shown_quantiles.items(), strict=True)
        ]
        or [ChartLabel((left + right) / 2, at(0, 0.27)[1], f"fewer than 1 in 10 within {last} days")],
    )


def _crossing_day(cdf: Sequence[float], share: float) -> float:
    """The day, interpolated linearly, at which the curve first reaches a share."""
    day = next(day for day, probability in enumerate(cdf, 1) if probability >= share)
    before = cdf[day - 2] if day > 1 else 0.0
    return day - 1 + (share - before) / (cdf[day - 1] - before)


def _last_day(length: int, days: dict[str, int | None]) -> int:
    """The last day of the drawing: a little after the 90 % quantile, if the curve reaches it."""
    target_days = (days.get("p90") or length) * 1.35
    return min(next((end for end in AXIS_ENDS_DAYS if end >= target_days), length), length)


def _tick_days(last: int, width: int) -> list[int]:
    candidates = [day for day in (7, 14, 21, 28, 42, 56, 90, 120, 150, 180) if day <= last]
    min_distance = 44 * last / width
    ticks: list[int] = []
    for day in candidates:
        if not ticks or day - ticks[-1] >= min_distance:
            ticks.append(day)
    return ticks


def _place_label(mark: ChartDot, text: str, left: float, right: float) -> ChartLabel:
    """A label right of a mark, under the curve; near the right edge left of it, above the curve."""
    if mark.x < left + 0.6 * (right - left):
        return ChartLabel(mark.x + 9, mark.y + 12, text, "start")
    return ChartLabel(mark.x - 9, mark.y - 7, text, "end")
