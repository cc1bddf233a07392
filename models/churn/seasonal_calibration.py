"""Season: how far the rhythm of purchases was wrong at this time of the year, and so how far it is wrong now.

Before Christmas more customers come back than their own past would tell; in January fewer do. What the rhythm said
a year ago, from what was known then, is set beside what came: the same line puts it right today.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from models import baselines, fates, waits
from models.base import Floats

Moments = NDArray[np.datetime64]

#: Whole weeks, so that a year ago was the same weekday.
YEAR_DAYS = 364
#: A moment this far from a year ago still tells of the season.
NEAR_DAYS = 28
#: So many horizons must have been seen before that moment: in a shop's first months everybody looks new.
LEAST_HORIZONS = 2
#: The fewest moments on which a line drawn at earlier ones must have proved itself.
LEAST_PROOFS = 2
#: No level is moved farther than this, in log odds.
FARTHEST = 3.0
#: No season's slope is trusted beyond so many times the usual one.
STEEPEST = 2.0
A_YEAR_AGO, EARLIER, LATEST = "a year ago", "all earlier moments", "the latest moment"


class Line(NamedTuple):
    """Platt's line on log odds: what was said against what came true."""

    offset: float = 0.0
    slope: float = 1.0

    def __call__(self, odds: Floats) -> Floats:
        """Log odds put right."""
        return self.offset + self.slope * odds


class Season(NamedTuple):
    """A line, where it was drawn, and what it did there: log loss before and after, in customers it never saw."""

    line: Line = Line()
    told_by: str = ""
    day: str = ""
    customers: int = 0
    before: float = 0.0
    after: float = 0.0

    @classmethod
    def of(cls, numbers: dict[str, Any]) -> Self:
        """Read back what `_asdict` gave."""
        return cls(**numbers | {"line": Line(*numbers["line"])})


#: Where nothing tells of the season, the rhythm is taken at its word.
NO_CHANGE, NOTHING = Line(), Season()


@dataclass(frozen=True)
class Past:
    """What the rhythm said of active customers at each moment, and what came: a row a customer and moment.

    `odds` are of no purchase within the horizon, by parameters fitted at the row's own moment; `quiet` is 1, 0, or
    NaN while nobody can say; `seen_days` is how much history the shop had at the row's moment.
    """

    moment: Moments
    odds: Floats
    quiet: Floats
    seen_days: Floats

    def known(self) -> Past:
        """The rows whose outcome is known."""
        return self.where(np.isfinite(self.quiet))

    def where(self, which: NDArray[np.bool_]) -> Past:
        """Some of the rows."""
        return Past(self.moment[which], self.odds[which], self.quiet[which], self.seen_days[which])


def season(past: Past, now: np.datetime64, horizon_days: int) -> Season:
    """The line that puts the rhythm right from now on: last year's where there is one, else what earlier ones teach.

    Without last year, lines drawn through all earlier moments and through the latest one are tried at every moment
    whose outcome is known. Only a line that clearly helped is kept; the latest moment's seldom does: where seasons
    change it tells of the wrong one (Online Retail II, 2010: log loss .636 against the rhythm's own .605).
    """
    known = past.known()
    ago = _a_year_ago(known, now, horizon_days)
    return _proved(known, horizon_days) if ago is None else _drawn(known.where(known.moment == ago), A_YEAR_AGO)


def steepness(told: Season, past: Past) -> float:
    """How much farther apart customers are in this season than in all others: half of what the rhythm's line says.

    Half, because one season is one season: the whole was no better than none on both shops' own lines.
    """
    if told.told_by != A_YEAR_AGO or told.line == NO_CHANGE:
        return 1.0
    known = past.known()
    ratio = told.line.slope / line(known.odds, known.quiet).slope
    return float(np.sqrt(np.clip(ratio, 1 / STEEPEST, STEEPEST)))


def line(odds: Floats, quiet: Floats) -> Line:
    """Platt's line by maximum likelihood; the level alone where it would turn round; nothing where few met a fate."""
    if min(quiet.sum(), (1 - quiet).sum()) < fates.FEWEST:
        return Line()
    centre, width = float(odds.mean()), max(float(odds.std()), 1e-6)
    level, steepness = baselines.logistic(((odds - centre) / width)[:, None], quiet, ridge=1e-3)
    slope = float(steepness / width)
    offset = float(level - slope * centre)
    return Line(offset, slope) if slope > 0 else Line(shift(odds, float(quiet.mean())), 1.0)


def log_loss(odds: Floats, quiet: Floats) -> Floats:
    """The log loss of each row."""
    loss: Floats = np.logaddexp(0, odds) - quiet * odds
    return loss


def shift(odds: Floats, level: float) -> float:
    """What to add to log odds so that their mean chance is this level."""
    if not len(odds):
        return 0.0

    def missing(by: float) -> float:
        return float(expit(odds + by).mean() - level)

    if missing(-FARTHEST) >= 0 or missing(FARTHEST) <= 0:
        return FARTHEST if missing(FARTHEST) <= 0 else -FARTHEST
    return float(brentq(missing, -FARTHEST, FARTHEST, xtol=1e-9))


def _a_year_ago(known: Past, now: np.datetime64, horizon_days: int) -> np.datetime64 | None:
    """The moment nearest to a year before now, where enough had been seen by then."""
    told = np.unique(known.moment[known.seen_days >= LEAST_HORIZONS * horizon_days])
    off = np.abs((told - now) / np.timedelta64(1, "D") + YEAR_DAYS)
    return told[np.argmin(off)] if len(off) and off.min() <= NEAR_DAYS else None


def _drawn(there: Past, told_by: str) -> Season:
    """The line of one moment if it helps customers it was not drawn from by two standard errors; else no change."""
    fold = np.arange(len(there.odds)) % 5
    before = log_loss(there.odds, there.quiet)
    after = before.copy()
    for held in range(5):
        drawn = line(there.odds[fold != held], there.quiet[fold != held])
        after[fold == held] = log_loss(drawn(there.odds[fold == held]), there.quiet[fold == held])
    gain = before - after
    clear = gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    kept = line(there.odds, there.quiet) if clear else Line()
    return Season(kept, told_by, _day(there), len(there.odds), float(before.mean()), float(after.mean()))


def _proved(known: Past, horizon_days: int) -> Season:
    """The best of the lines drawn through earlier moments, if it clearly helped at later ones; else no change."""
    tried = [_trial(known, when, horizon_days) for when in np.unique(known.moment)]
    losses = np.array([losses for losses in tried if losses is not None]).reshape(-1, 3)
    if len(losses) < LEAST_PROOFS:
        return NOTHING
    gains = losses[:, :1] - losses[:, 1:]
    best = int(np.argmax(gains.mean(axis=0)))
    gain = gains[:, best]
    if gain.mean() <= 2 * gain.std() / np.sqrt(len(gain)):
        return NOTHING
    there = known if best == 0 else known.where(known.moment == known.moment.max())
    before, after = losses[:, 0].mean(), losses[:, 1 + best].mean()
    told_by = (EARLIER, LATEST)[best]
    return Season(line(there.odds, there.quiet), told_by, _day(there), len(there.odds), float(before), float(after))


def _trial(known: Past, when: np.datetime64, horizon_days: int) -> tuple[float, float, float] | None:
    """Log loss at a moment: as said, by the line of all moments complete by then, by that of the latest of them."""
    complete = known.where(waits.over(known.moment, horizon_days, when))
    if min(complete.quiet.sum(), (1 - complete.quiet).sum()) < fates.FEWEST:
        return None
    there, last = known.where(known.moment == when), complete.where(complete.moment == complete.moment.max())
    lines = (Line(), line(complete.odds, complete.quiet), line(last.odds, last.quiet))
    said, earlier, latest = (float(log_loss(drawn(there.odds), there.quiet).mean()) for drawn in lines)
    return said, earlier, latest


def _day(there: Past) -> str:
    return str(there.moment.max().astype("datetime64[D]"))
