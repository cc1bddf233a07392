"""Cadence: buy till you die for customers who come more regularly than by chance, or leave after one visit.

One exact likelihood for BG/NBD, MBG/NBD and (M)BG/CNBD-k (Reutterer, Platzer and Schroeder 2020), with any k > 0.

No night asks it: this is the family from which the rhythm that serves was chosen. On both shops, Complete Journey and
Online Retail II, k = 1 foretold best, which is BG/NBD (see btyd). Whoever measures another shop asks `chosen` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import betaincc, betaln, gammainc, gammaincc, gammaincinv, gammaln

from models import btyd
from models.base import Floats
from models.btyd import History

#: Parameters are fitted to so many customers at most, drawn once and for all: more would not move them visibly.
SAMPLE = 5_000
#: Regularities to choose from; 1 is by chance, more is more regular. A family of k = 1 that may leave at once is
#: MBG/NBD; one that may not is BG/NBD.
CHOICES = tuple((k, at_once) for at_once in (False, True) for k in (1.0, 1.5, 2.0, 3.0))
#: A family must do better than BG/NBD by so large a share of its log loss.
CLEARLY = 0.002
#: Rates that stand for all that are possible, and points of time between now and then.
RATES, TIMES = 16, 16
LEAST = 1e-300


@dataclass(frozen=True, slots=True)
class Cadence:
    """Gaps between purchases vary as Gamma(k, rate), rates over customers as Gamma(r, alpha), chances of leaving
    after a purchase as Beta(a, b); `at_once` says that the first purchase may already have been the last.

    alpha is in days. What is known of a customer is x purchases after the first, t_x days from the first to the last
    and T days from the first to now, as in BgNbd.
    """

    r: float
    alpha: float
    a: float
    b: float
    k: float = 1.0
    at_once: bool = False

    @classmethod
    def fit(cls, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, *, k: float = 1.0, at_once: bool = False) -> Self:
        """The most probable parameters for a regularity k, by the exact likelihood and weak priors.

        k is not fitted: likelihood prefers 1.6 to 1.8 on groceries, where forecasts with it are worse (coverage .73
        for a nominal .80). `chosen` compares forecasts.
        """
        past = _some(btyd.columns(x, t_x, T))
        scale = btyd.typical_gap(past)
        scaled = History(past.x, past.t_x / scale, past.T / scale)
        bounds = [(-btyd.BOUND, btyd.BOUND)] * 4
        start = btyd.PRIOR_CENTRE + np.array([0.0, np.log(k), 0.0, 0.0])
        found = minimize(_objective(scaled, k, at_once), start, jac=True, method="L-BFGS-B", bounds=bounds)
        r, alpha, a, b = np.exp(found.x)
        return cls(float(r), float(alpha * scale), float(a), float(b), k, at_once)

    @classmethod
    def fit_frame(cls, frame: pd.DataFrame, *, k: float = 1.0, at_once: bool = False) -> Self:
        """The parameters of the customers in a frame of one moment."""
        return cls.fit(*btyd.history(frame), k=k, at_once=at_once)

    def p_alive(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> Floats:
        """P(has not left for good by T | the past)."""
        past = btyd.columns(x, t_x, T)
        stay, leave = _fates(past.x, self.a, self.b, self.at_once)
        gone = leave - stay - self._log_silent(past, past.T - past.t_x)
        return np.asarray(1 / (1 + np.exp(np.clip(gone, -700.0, 700.0))), dtype=np.float64)

    def p_no_purchase(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, t: ArrayLike) -> Floats:
        """P(no purchase in the t days after T | the past), exactly: gone already, or alive and silent."""
        past = btyd.columns(x, t_x, T)
        return self._quiet(past, np.asarray(t, dtype=np.float64), self.p_alive(*past))

    def survival(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, days: int) -> Floats:
        """P(no purchase in the first d days after T | the past) for d = 1..days: array (customers, days)."""
        past = btyd.columns(x, t_x, T)
        ahead = np.arange(1, days + 1, dtype=np.float64)[None, :]
        each = History(*(part[:, None] for part in past))
        return np.minimum.accumulate(self._quiet(each, ahead, self.p_alive(*past)[:, None]), axis=1)

    def expected_purchases(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, t: float) -> Floats:
        """The expected number of purchases in the t days after T, given the past.

        Exact for k = 1. Else the first purchase is exact, and for those after it a few rates stand for each customer:
        purchases of somebody who never leaves, each discounted by the chance to be there still. Of simulated
        customers the total is within 5 % for k up to 4.
        """
        past = btyd.columns(x, t_x, T)
        alive = self.p_alive(*past)
        if self.k == 1:
            plain = btyd.BgNbd(self.r, self.alpha, self.a, self.b + self.at_once)
            return np.asarray(alive * plain.expected_while_alive(past.x, past.T, t), dtype=np.float64)
        first = 1 - self._quiet(past, np.array(float(t)), np.ones(len(past.x)))
        return np.asarray(alive * (first + self._further(past, float(t))), dtype=np.float64)

    def log_odds_quiet(self, past: History, days: int) -> tuple[Floats, Floats]:
        """Log odds of no purchase within these days, as two parts that add up: rare visits, present silence."""
        rare = btyd.log_odds(self.p_no_purchase(past.x, past.T, past.T, days))
        return rare, btyd.log_odds(self.p_no_purchase(*past, days)) - rare

    def rate(self, x: ArrayLike, T: ArrayLike) -> Floats:
        """Purchases a day to expect while alive, given the past."""
        purchases, days = np.asarray(x, dtype=np.float64), np.asarray(T, dtype=np.float64)
        return np.asarray((self.r + self.k * purchases) / (self.alpha + days) / self.k, dtype=np.float64)

    def _further(self, past: History, ahead: float) -> Floats:
        """Purchases to expect after the first one in the days ahead, of somebody who has not left."""
        shape, pace = (self.r + self.k * past.x)[:, None], (self.alpha + past.t_x)[:, None]
        rates = gammaincinv(shape, (np.arange(RATES) + 0.5) / RATES) / pace
        silence, b = (past.T - past.t_x)[:, None], (self.b + past.x + self.at_once)[:, None]
        points = np.linspace(0.0, ahead, TIMES + 1)
        silent = [gammaincc(self.k, rates * (silence + point)) for point in points]
        count = np.zeros(rates.shape)
        for number in range(TIMES):
            left = rates * (ahead - (points[number] + points[number + 1]) / 2)
            more = np.maximum(left / self.k - (self.k - 1) / (2 * self.k), gammainc(self.k, left))
            count += (silent[number] - silent[number + 1]) * (_staying(1 + more, self.a, b) - 1)
        # A rate that would have made so long a silence unlikely counts for less.
        further: Floats = count.sum(axis=1) / np.maximum(silent[0].sum(axis=1), LEAST)
        return further

    def _quiet(self, past: History, ahead: Floats, alive: Floats) -> Floats:
        silence = past.T - past.t_x
        further = self._log_silent(past, silence + ahead) - self._log_silent(past, silence)
        return np.clip(1 + alive * np.expm1(np.minimum(further, 0.0)), 0.0, 1.0)

    def _log_silent(self, past: History, silence: Floats) -> Floats:
        return _log_silent(self.r + self.k * past.x, self.alpha + past.t_x, silence, self.k)


def chosen(
    now: History, earlier: Sequence[tuple[History, Floats, Floats]], choices: Sequence[tuple[float, bool]] = CHOICES
) -> Cadence:
    """The family that foretold best at earlier moments, fitted to the present; BG/NBD unless another is clearly ahead.

    earlier: of each moment what was known then, how many days each customer was watched after it (n,), and whether
    a purchase ended that (n,), as 1 or 0.
    """
    losses = [[_log_loss(Cadence.fit(*then, k=k, at_once=at_once), then, *came) for then, *came in earlier]
              for k, at_once in choices]  # fmt: skip
    mean = np.array([np.mean(each) if each else 0.0 for each in losses])
    best = int(np.argmin(mean))
    ahead = mean[0] - mean[best] > CLEARLY * abs(mean[0])
    always = ahead and all(mine < plain for mine, plain in zip(losses[best], losses[0], strict=True))
    k, at_once = choices[best] if always else choices[0]
    return Cadence.fit(*now, k=k, at_once=at_once)


def _log_loss(family: Cadence, then: History, watched: Floats, bought: Floats) -> float:
    """Minus the mean log chance of the day of the next purchase, or of none while watched."""
    days = np.maximum(watched, 0.0)
    before = family.p_no_purchase(*then, np.maximum(days - 1, 0.0))
    after = family.p_no_purchase(*then, days)
    return float(-np.log(np.maximum(np.where(bought == 1, before - after, after), btyd.CERTAIN)).mean())


def _some(past: History) -> History:
    if len(past.x) <= SAMPLE:
        return past
    rows = np.random.default_rng(0).choice(len(past.x), SAMPLE, replace=False)
    return History(*(part[rows] for part in past))


def _objective(past: History, k: float, at_once: bool) -> Any:
    """Minus the log posterior and its gradient by small steps, as a function of the logs of r, alpha, a and b."""
    silence, step = past.T - past.t_x, 1e-5

    def seen(r: float, alpha: float) -> tuple[Floats, Floats]:
        shape, pace = r + k * past.x, alpha + past.t_x
        begun = gammaln(shape) - gammaln(r) + r * np.log(alpha) - shape * np.log(pace)
        return begun, _log_silent(shape, pace, silence, k)

    def total(logs: Floats, came: tuple[Floats, Floats]) -> float:
        stay, leave = _fates(past.x, float(np.exp(logs[2])), float(np.exp(logs[3])), at_once)
        off = (logs - btyd.PRIOR_CENTRE) / btyd.PRIOR_WIDTH
        return 0.5 * float(off @ off) - float((came[0] + np.logaddexp(stay + came[1], leave)).sum())

    def objective(logs: Floats) -> tuple[float, Floats]:
        here = seen(*np.exp(logs[:2]))
        value, moved = total(logs, here), logs + step * np.eye(4)
        # What was seen of rates does not depend on a and b; it is the dear part.
        each = [total(one, seen(*np.exp(one[:2])) if place < 2 else here) for place, one in enumerate(moved)]
        return value, (np.array(each) - value) / step

    return objective


def _fates(x: Floats, a: float, b: float, at_once: bool) -> tuple[Floats, Floats]:
    """The log chances of having stayed after every purchase, and of having left after the last one."""
    stays = x + at_once
    left = betaln(a + 1, b + np.maximum(stays - 1, 0.0)) - betaln(a, b)
    return betaln(a, b + stays) - betaln(a, b), np.where(stays > 0, left, -np.inf)


def _log_silent(shape: Floats, pace: Floats, silence: Floats, k: float) -> Floats:
    """log P(a gap is longer than this | alive): its Gamma(k, rate) over the rate's Gamma(shape, pace).

    The ratio of a gap to a gap and a rate's waiting time varies as Beta(k, shape): exact for any k, no sum needed.
    """
    if k == 1:
        return np.asarray(-shape * np.log1p(silence / pace), dtype=np.float64)
    chance = betaincc(k, shape, silence / (pace + silence))
    return np.asarray(np.log(np.maximum(chance, LEAST)), dtype=np.float64)


def _staying(count: Floats, a: float, b: Floats) -> Floats:
    """The sum of the chances to be there still before each of so many purchases: 1, then one leaving fewer."""
    if abs(a - 1) < 1e-6:
        a = 1 + 1e-6
    lasting = gammaln(b + count) - gammaln(b) + gammaln(a + b - 1) - gammaln(a + b + count - 1)
    return np.asarray((a + b - 1) / (a - 1) * -np.expm1(lasting), dtype=np.float64)
