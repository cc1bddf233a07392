"""Waits: how long customers were watched until they came back, and what their rhythm says of the days ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from models import btyd, fates
from models.base import WEEKDAY, Floats, feature_columns, matrix

Singles = NDArray[np.float32]
Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]

SHARES = [f"weekday_{day}_share" for day in range(7)]
AGES = ("tenure_days", "span_days")
#: The moments held back to say when to stop are the latest that were watched for this many days, and any later.
WATCHED_DAYS = 28
FORTNIGHT = 14
#: Moments are the shop's midnights told in UTC: between two of them with a change of clocks an hour is missing.
SLACK = np.timedelta64(12, "h")
#: The width of what a shop's level is taken to be before it is seen, in log odds.
LEANING = 0.3


@dataclass(frozen=True)
class Waits:
    """How many days each row was watched, whether a purchase ended it, and from which moment on."""

    watched: Whole
    bought: Mask
    moment: NDArray[np.datetime64]

    @classmethod
    def of(cls, frame: pd.DataFrame, label: pd.DataFrame, days: int) -> Self:
        """Read a label of duration_days and observed; what comes after `days` days is not looked at."""
        watched, bought = fates.durations(label, days)
        return cls(watched.astype(np.int64), bought, moments(frame))

    @property
    def begun(self) -> Mask:
        """Which rows have been watched for a day at least."""
        return self.watched > 0

    def where(self, which: Any) -> Self:
        """Some of the rows: a mask, or their places."""
        return type(self)(self.watched[which], self.bought[which], self.moment[which])

    def until(self, end: np.datetime64) -> Self:
        """What was known of these rows at the end: later purchases have not happened yet."""
        limit = np.maximum((end + SLACK - self.moment) // np.timedelta64(1, "D"), 0).astype(np.int64)
        seen = self.bought & (self.watched <= limit)
        return type(self)(np.minimum(self.watched, limit), seen, self.moment)

    def split(self, days: int) -> np.datetime64 | None:
        """The moment that parts rows to learn from and rows to judge by; None where nothing was watched for long."""
        end = (self.moment + self.watched.astype("timedelta64[D]"))[self.begun].max(initial=_NEVER)
        full = self.moment[over(self.moment, min(WATCHED_DAYS, days), end)]
        return full.max() if len(full) else None


_NEVER = np.datetime64(0, "us")


def over(moment: NDArray[np.datetime64], days: Whole | int, end: np.datetime64) -> Mask:
    """Whether so many whole days from each moment were over at the end, whatever the clocks did in between."""
    return np.asarray(moment + np.asarray(days).astype("timedelta64[D]") <= end + SLACK)


def moments(frame: pd.DataFrame) -> NDArray[np.datetime64]:
    """The moment of every row."""
    return pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")


@dataclass(frozen=True)
class Calendar:
    """How much oftener than usual all customers came around some days, in log odds of a day.

    Shops have seasons, and learners would take the season of the moments they learn from for a law: in December
    they would promise another autumn. What the calendar did is taken out before they learn, so that they learn
    of its mean (Online Retail II, December 2010, 104 days ahead: CRPS 19.2 instead of 19.9).
    """

    day: Floats  # since 1970, ascending
    odds: Floats

    @classmethod
    def of(cls, frame: pd.DataFrame, watch: Waits) -> Self:
        """The level of the fortnight after each moment, against the rhythm and then against the mean of all days."""
        moment, days = watch.moment, np.arange(FORTNIGHT + 1)
        _, ahead = rhythms(frame, days, np.arange(len(frame)))
        at_risk = days[:-1] < watch.watched[:, None]
        came = watch.bought & (watch.watched <= FORTNIGHT)
        each = np.unique(moment[watch.begun])
        odds = [_shift(ahead[moment == when], at_risk[moment == when], came[moment == when]) for when in each]
        day = _days(each) + FORTNIGHT / 2
        usual = np.interp(np.arange(day[0], day[-1] + 1), day, odds).mean()
        return cls(day, np.array(odds) - usual)

    def on(self, moment: NDArray[np.datetime64], edges: Whole) -> Singles:
        """The level in the midst of each period ahead of each moment: array (rows, periods)."""
        middle = (edges[:-1] + edges[1:]) / 2
        return np.interp(_days(moment)[:, None] + middle, self.day, self.odds).astype(np.float32)


def _days(moment: NDArray[np.datetime64]) -> Floats:
    return moment.astype("datetime64[s]").astype(np.float64) / 86_400


def _shift(odds: Singles, at_risk: Mask, came: Mask) -> float:
    """What added to all log odds makes as many come as came; a normal prior of LEANING keeps few from saying much."""
    shift = 0.0
    for _ in range(15):
        chance = expit(odds + shift) * at_risk
        slope = came.sum() - chance.sum() - shift / LEANING**2
        shift += float(slope / ((chance * (1 - chance)).sum() + 1 / LEANING**2))
    return shift


def rhythms(frame: pd.DataFrame, edges: Whole, rows: Whole) -> tuple[Floats, Singles]:
    """The rhythm's terms and log odds of these rows, by parameters fitted to all rows of each one's own moment."""
    moment, past = moments(frame), btyd.history(frame)
    terms, ahead = np.zeros((len(rows), 3)), np.zeros((len(rows), len(edges) - 1), dtype=np.float32)
    for when in np.unique(moment):
        rhythm = btyd.BgNbd.fit(*(part[moment == when] for part in past))
        here = moment[rows] == when
        then = btyd.History(*(part[rows[here]] for part in past))
        terms[here], ahead[here] = rhythm_terms(rhythm, then), log_odds_ahead(rhythm, then, edges)
    return terms, ahead


def rhythm_terms(rhythm: btyd.BgNbd, past: btyd.History) -> Floats:
    """What the rhythm knows of each customer: still there or not, how often, how long silent; about equally wide."""
    alive = btyd.log_odds(rhythm.p_alive(*past))
    return np.column_stack([alive / 4, np.log(rhythm.rate(past.x, past.T)) + 3, np.log1p(past.T - past.t_x) - 2])


def log_odds_ahead(rhythm: btyd.BgNbd, past: btyd.History, edges: Whole) -> Singles:
    """Log odds of buying between each edge and the next, given nothing before: half BG/NBD's, half of the faithful.

    edges: days from as_of, beginning with 0. Customers whom BG/NBD takes for gone come back oftener than it says,
    and no learner can argue with certainty: counting its doubts half took the log loss a row from 2.844 to 2.835
    (Complete Journey, days 154 to 214).
    """
    ahead = edges.astype(np.float64)[None, :]
    each = btyd.History(*(part[:, None] for part in past))
    curve = rhythm.p_no_purchase(*each, ahead)
    faithful = -(rhythm.r + each.x) * np.log1p(ahead / (rhythm.alpha + each.T))
    staying = -np.expm1(np.diff(faithful, axis=1))
    odds = (btyd.log_odds(1 - curve[:, 1:] / curve[:, :-1]) + btyd.log_odds(staying)) / 2
    return odds.astype(np.float32)


def telling(frame: pd.DataFrame) -> list[str]:
    """The features to learn from: all but those that tell mostly how long the shop has kept records.

    Customers of one shop grow old together, so that age tells the season; the rhythm knows it for what it is.
    """
    return [name for name in feature_columns(frame) if name not in AGES]


def first_weekday(frame: pd.DataFrame) -> Whole:
    """The weekday of the first day ahead in the shop's zone; without the feature, as the clock of as_of says."""
    told = frame[WEEKDAY] if WEEKDAY in frame.columns else frame["as_of"].dt.weekday
    return np.nan_to_num(told.to_numpy(dtype=np.float64)).astype(np.int64) % 7


def habit(frame: pd.DataFrame) -> Singles:
    """Log of how much oftener than one in seven the customer came on each weekday: array (rows, 7), Monday first.

    A visit on every weekday is added, so that few visits say little.
    """
    if not set(SHARES) <= set(frame.columns):
        return np.zeros((len(frame), 7), dtype=np.float32)
    visits = btyd.history(frame).x[:, None] + 1
    shares = np.nan_to_num(matrix(frame, SHARES), nan=1 / 7)
    return np.log(7 * (shares * visits + 1) / (visits + 7)).astype(np.float32)
