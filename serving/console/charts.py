"""Pictures: where the lines and dots of a drawing go; templates draw them, and no number is made up here.

Positions are in the drawing's own units; a drawing is made once for a wide page and once for a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import median

from serving.console.visiting import Rhythm, Visit
from serving.console.wording import MONTHS, percent, short_day

YEAR_DAYS = 365
#: However new a customer is, so much time is shown, lest three visits fill the page.
LEAST_DAYS = 90
#: So far ahead the next visit is drawn; a later one is told in words.
AHEAD_DAYS = 30

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Label:
    """Words at a place; `anchor` is the side of the place on which they stand."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Dot:
    """A round mark."""

    x: float
    y: float
    r: float
    text: str


# The rhythm of visits -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strip:
    """A year of visits as hops along a line of days: a long gap is a high hop, today's silence an open one."""

    width: int
    height: int
    ground: float
    hops: str
    dots: list[Dot]
    silence: str
    awaited: str | None
    awaited_dot: Dot | None
    usual_y: float | None
    today_x: float
    months: list[Label]


def strip(rhythm: Rhythm, *, width: int, expected: date | None, height: int = 150) -> Strip:
    """The picture of a rhythm; `expected` is the day by which the next visit is as likely as not."""
    line = _line(rhythm, width, height - 28.0)
    visits = rhythm.since(line.start)
    ahead = (expected - rhythm.today).days if expected else -1
    shown = expected if 0 <= ahead <= AHEAD_DAYS else None
    usual = rhythm.usual_gap
    return Strip(
        width=width,
        height=height,
        ground=line.ground,
        hops="".join(line.hop(begin, end) for begin, end in _gaps(visits)),
        dots=list(_dots(visits, line)),
        silence=line.hop(rhythm.last, rhythm.today),
        awaited=line.hop(rhythm.today, shown) if shown else None,
        awaited_dot=Dot(line.x(shown), line.ground, 4.5, f"as likely as not by {short_day(shown)}") if shown else None,
        usual_y=line.ground - line.rise(usual) if usual else None,
        today_x=line.x(rhythm.today),
        months=list(_months(line, height - 8.0)),
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """Days laid along a width, with room above for hops and to the right for days still to come."""

    start: date
    today: date
    longest: float
    width: int
    ground: float
    ceiling: float = 14.0
    margin: float = 10.0

    @property
    def span(self) -> int:
        return (self.today - self.start).days + AHEAD_DAYS

    def x(self, day: date) -> float:
        return self.margin + (day - self.start).days / self.span * (self.width - 2 * self.margin)

    def rise(self, days: float) -> float:
        """How high a gap of so many days is drawn: nearly in step, but the longest must not flatten all others."""
        return float((self.ground - self.ceiling) * min(days / self.longest, 1.0) ** 0.8)

    def hop(self, begin: date, end: date) -> str:
        """The path from one day to another; from before the picture began, its falling half."""
        rise, right = self.rise((end - begin).days), self.x(end)
        if begin < self.start:
            reach = right - self.margin
            return f"M{self.margin:.1f} {self.ground - rise:.1f}A{reach:.1f} {rise:.1f} 0 0 1 {right:.1f} {self.ground}"
        reach = (right - self.x(begin)) / 2
        return f"M{self.x(begin):.1f} {self.ground}A{reach:.1f} {rise:.1f} 0 0 1 {right:.1f} {self.ground}"


def _line(rhythm: Rhythm, width: int, ground: float) -> _Line:
    """From a year ago, or for somebody newer from a week before their first visit."""
    first = max(rhythm.visits[0].day - timedelta(days=7), rhythm.today - timedelta(days=YEAR_DAYS))
    start = min(first, rhythm.today - timedelta(days=LEAST_DAYS))
    gaps = [(end - begin).days for begin, end in _gaps(rhythm.since(start))]
    longest = max([*gaps, rhythm.silent_days, rhythm.usual_gap or 0, 7])
    return _Line(start, rhythm.today, longest, width, ground)


def _gaps(visits: Sequence[Visit]) -> list[tuple[date, date]]:
    return [(before.day, after.day) for before, after in pairwise(visits)]


def _dots(visits: Sequence[Visit], line: _Line) -> Iterator[Dot]:
    """A dot a visit, its area in step with what was paid; where days are crowded, smaller dots."""
    usual = median(visit.spent for visit in visits) if visits else 0.0
    crowd = min(1.0, math.sqrt(line.width / (10.0 * max(len(visits), 1))))
    for visit in visits:
        size = math.sqrt(max(visit.spent, 0.0) / usual) if usual > 0 else 1.0
        yield Dot(line.x(visit.day), line.ground, (1.2 + 2.2 * min(size, 2.2)) * crowd, short_day(visit.day))


def _months(line: _Line, y: float) -> Iterator[Label]:
    """The first of each month, as far apart as there is room to read them; January is told by its year."""
    step = next((n for n in (1, 2, 3, 6) if line.width * 30.4 * n / line.span >= 44), 12)
    for number in range(1, line.span // 28 + 2):
        year, month = divmod(line.start.month - 1 + number, 12)
        begins = date(line.start.year + year, month + 1, 1)
        if month % step == 0 and line.x(begins) <= line.width - 14:
            yield Label(line.x(begins), y, MONTHS[month] if month else str(begins.year))


# The purchase curve -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """How the chance of a purchase grows from day to day, with the days that matter marked on it."""

    width: int
    height: int
    line: str
    area: str
    left: float
    right: float
    ground: float
    rails: list[Label]
    ticks: list[Label]
    marks: list[Dot]
    labels: list[Label]


ENDS = (14, 28, 42, 56, 90, 120, 180)
SHARES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
IN_WORDS = {"p10": "1 in 10", "p50": "half", "p90": "9 in 10"}


def curve(cdf: Sequence[float], days: dict[str, int | None], *, first: date, width: int, height: int = 240) -> Curve:
    """The picture of a curve whose first value is the chance of a purchase on the day `first` itself."""
    last = _last_day(len(cdf), days)
    left, right, ground, ceiling = 40.0, width - 16.0, height - 26.0, 14.0

    def at(day: float, share: float) -> Point:
        return left + (right - left) * day / last, ground - (ground - ceiling) * share

    points = [at(0, 0.0), *(at(day, cdf[day - 1]) for day in range(1, last + 1))]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    known = {name: day for name, day in days.items() if day is not None and day <= last}
    marks = [Dot(*at(_crossing(cdf, SHARES[name]), SHARES[name]), 4.0, "") for name in known]
    return Curve(
        width=width,
        height=height,
        line=line,
        area=f"{line}L{right:.1f} {ground:.1f}L{left:.1f} {ground:.1f}Z",
        left=left,
        right=right,
        ground=ground,
        rails=[Label(left, at(0, share)[1], percent(share), "end") for share in (0.1, 0.5, 0.9)],
        ticks=[Label(at(day, 0)[0], height - 8.0, f"{day} d") for day in _ticks(last, width)],
        marks=marks,
        labels=[
            _beside(mark, f"{IN_WORDS[name]} by {short_day(first + timedelta(days=day - 1))}", left, right)
            for mark, (name, day) in zip(marks, known.items(), strict=True)
        ]
        or [Label((left + right) / 2, at(0, 0.27)[1], f"fewer than 1 in 10 within {last} days")],
    )


def _crossing(cdf: Sequence[float], share: float) -> float:
    """Where the drawn line, straight from day to day, first reaches a share."""
    day = next(day for day, reached in enumerate(cdf, 1) if reached >= share)
    before = cdf[day - 2] if day > 1 else 0.0
    return day - 1 + (share - before) / (cdf[day - 1] - before)


def _last_day(length: int, days: dict[str, int | None]) -> int:
    """Where the drawing ends: a little after nine in ten have come, if that can be said."""
    wanted = (days.get("p90") or length) * 1.35
    return min(next((end for end in ENDS if end >= wanted), length), length)


def _ticks(last: int, width: int) -> list[int]:
    weekly = [day for day in (7, 14, 21, 28, 42, 56, 90, 120, 150, 180) if day <= last]
    apart = 44 * last / width
    kept: list[int] = []
    for day in weekly:
        if not kept or day - kept[-1] >= apart:
            kept.append(day)
    return kept


def _beside(mark: Dot, text: str, left: float, right: float) -> Label:
    """Words to the right of a mark, under the curve; near the edge to its left, above the curve."""
    if mark.x < left + 0.6 * (right - left):
        return Label(mark.x + 9, mark.y + 12, text, "start")
    return Label(mark.x - 9, mark.y - 7, text, "end")
