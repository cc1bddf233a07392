"""Buy till you die: how long a silence is still usual for somebody with this past, and when it is goodbye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1, logit, psi

from models.base import Floats, require_columns

# Centres and widths of the normal priors on log r, log(alpha / typical gap), log a and log b. They weigh as
# much as a handful of customers: a shop of thousands does not notice them, a shop of one stays finite.
PRIOR_CENTRE = np.log([1.0, 1.0, 0.5, 2.0])
PRIOR_WIDTH = np.array([1.0, 1.5, 1.5, 1.5])
BOUND = 9.0
#: Nobody is surer than this of anything.
MIN_PROBABILITY = 1e-6


class PurchaseSummary(NamedTuple):
    """Each customer's past in three numbers, in days: what buy-till-you-die models need to know."""

    x: Floats  # purchases after the first
    t_x: Floats  # from the first to the last
    T: Floats  # from the first to now


def purchase_summary(frame: pd.DataFrame) -> PurchaseSummary:
    """Read the three numbers from a frame's purchase_days, span_days and tenure_days.

    A tenure of one day is a first purchase yesterday, the last day that was seen: T = tenure_days - 1. Rows
    without a purchase count as somebody seen for no time at all.
    """
    require_columns(frame, ["purchase_days", "span_days", "tenure_days"])
    x = _non_negative(frame["purchase_days"]) - 1
    t_x = _non_negative(frame["span_days"])
    return PurchaseSummary(np.maximum(x, 0.0), t_x, np.maximum(_non_negative(frame["tenure_days"]) - 1, t_x))


def log_odds(probability: ArrayLike) -> Floats:
    """The logarithm of the odds, kept finite: no past makes anything certain."""
    odds: Floats = logit(np.clip(np.asarray(probability, dtype=np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    return odds


@dataclass(frozen=True, slots=True)
class BgNbd:
    """BG/NBD (Fader, Hardie and Lee 2005): purchases come at a steady rate until, after one of them, none do.

    Rates vary over customers as Gamma(r, alpha), chances of leaving after a purchase as Beta(a, b); alpha is
    in days. 1 - p_alive is not churn: who is alive may still not come within the horizon, and a customer with
    no repeat purchase is always alive here. The question of churn is `p_no_purchase`.
    """

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> Self:
        """The most probable parameters, by the exact likelihood and weak priors, for one customer or many.

        x: purchases after the first; t_x: days from the first to the last; T: days from the first to now.
        """
        summary = as_summary(x, t_x, T)
        scale = mean_gap_days(summary)
        scaled = PurchaseSummary(summary.x, summary.t_x / scale, summary.T / scale)
        optimum = minimize(_objective(scaled), PRIOR_CENTRE, jac=True, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * 4)
        r, alpha, a, b = np.exp(optimum.x)
        return cls(float(r), float(alpha * scale), float(a), float(b))

    @classmethod
    def fit_frame(cls, frame: pd.DataFrame) -> Self:
        """The parameters of the customers in a frame of one moment."""
        return cls.fit(*purchase_summary(frame))

    def p_alive(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> Floats:
        """P(has not left for good by T | the past)."""
        summary = as_summary(x, t_x, T)
        repeats = np.maximum(summary.x, 1.0)
        log_left_odds = np.log(self.a / (self.b + repeats - 1))
        log_left_odds += (self.r + summary.x) * np.log((self.alpha + summary.T) / (self.alpha + summary.t_x))
        return np.where(summary.x > 0, 1 / (1 + np.exp(np.minimum(log_left_odds, 700.0))), 1.0)

    def p_no_purchase(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, t: ArrayLike) -> Floats:
        """P(no purchase in the t days after T | the past), exactly: gone already, or alive and silent."""
        summary = as_summary(x, t_x, T)
        alive = self.p_alive(*summary)
        return 1 - alive * -np.expm1(self._log_no_purchase(summary, np.asarray(t, dtype=np.float64)))

    def survival(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, days: int) -> Floats:
        """P(no purchase in the first d days after T | the past) for d = 1..days: array (customers, days)."""
        summary = as_summary(x, t_x, T)
        alive = self.p_alive(*summary)[:, None]
        days_ahead = np.arange(1, days + 1, dtype=np.float64)[None, :]
        return 1 - alive * -np.expm1(
            self._log_no_purchase(PurchaseSummary(*(part[:, None] for part in summary)), days_ahead)
        )

    def no_purchase_log_odds_parts(self, summary: PurchaseSummary, days: int) -> tuple[Floats, Floats]:
        """Log odds of no purchase within these days, as two parts that add up: rare visits, present silence.

        The first is what the odds would be had everybody bought just now; the second is what the days since
        their last purchase add to it.
        """
        frequency_effect = log_odds(self.p_no_purchase(summary.x, summary.T, summary.T, days))
        return frequency_effect, log_odds(self.p_no_purchase(*summary, days)) - frequency_effect

    def expected_purchases(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, t: ArrayLike) -> Floats:
        """The expected number of purchases in the t days after T, given the past."""
        summary = as_summary(x, t_x, T)
        return self.p_alive(*summary) * self.expected_while_alive(summary.x, summary.T, t)

    def expected_while_alive(self, x: Floats, T: Floats, t: ArrayLike) -> Floats:
        """The same of somebody who has not left by T.

        Equation 10 of the paper after Euler's transformation of the hypergeometric function, which takes the
        large exponents out: frequent customers do not overflow.
        """
        a = self.a if abs(self.a - 1) > 1e-6 else 1 + 1e-6  # a = 1 is a removable gap in the formula
        c = a + self.b + x - 1
        c = np.where(np.abs(c) < 1e-6, 1e-6, c)
        days_ahead = np.asarray(t, dtype=np.float64)
        z = days_ahead / (self.alpha + T + days_ahead)
        hypergeometric = np.exp((a - 1) * np.log1p(-z)) * hyp2f1(a + self.b - 1 - self.r, a - 1, c, z)
        expected: Floats = c / (a - 1) * (1 - hypergeometric)
        return expected

    def rate(self, x: ArrayLike, T: ArrayLike) -> Floats:
        """Purchases a day to expect while alive, given the past: the mean of the posterior Gamma."""
        purchases, days = np.asarray(x, dtype=np.float64), np.asarray(T, dtype=np.float64)
        return np.asarray((self.r + purchases) / (self.alpha + days), dtype=np.float64)

    def _log_no_purchase(self, summary: PurchaseSummary, days_ahead: Floats) -> Floats:
        """log P(no purchase in the days ahead | alive): the rate is integrated over its posterior."""
        log_probability: Floats = -(self.r + summary.x) * np.log1p(days_ahead / (self.alpha + summary.T))
        return log_probability


def _non_negative(column: pd.Series[Any]) -> Floats:
    values: Floats = np.nan_to_num(column.to_numpy(dtype=np.float64, na_value=np.nan), posinf=0.0, neginf=0.0)
    return np.maximum(values, 0.0)


def as_summary(x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> PurchaseSummary:
    """The three numbers as arrays, of one customer or of many."""
    return PurchaseSummary(*(np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in (x, t_x, T)))


def mean_gap_days(summary: PurchaseSummary) -> float:
    """Days from one purchase to the next, over everybody."""
    return float(max(summary.T.sum(), 1.0) / (summary.x.sum() + 1.0))


def _objective(summary: PurchaseSummary) -> Any:
    """Minus the log posterior and its gradient, as a function of the logs of r, alpha, a and b."""
    # The special functions depend on x alone, and there are few different x: that makes 100,000 cheap.
    values, where = np.unique(summary.x, return_inverse=True)

    def objective(logs: Floats) -> tuple[float, Floats]:
        value, gradient = _log_likelihood(np.exp(logs), summary, values, where)
        deviation = (logs - PRIOR_CENTRE) / PRIOR_WIDTH
        return 0.5 * float(deviation @ deviation) - value, deviation / PRIOR_WIDTH - gradient * np.exp(logs)

    return objective


def _log_likelihood(
    parameters: Floats, summary: PurchaseSummary, values: Floats, where: NDArray[np.intp]
) -> tuple[float, Floats]:
    """The log likelihood and its gradient by (r, alpha, a, b); equation 6 of the paper."""
    r, alpha, a, b = parameters
    repeats = np.maximum(values, 1.0)
    log_total, log_last = np.log(alpha + summary.T), np.log(alpha + summary.t_x)
    staying = betaln(a, b + values)[where] - (r + summary.x) * log_total
    leaving = np.where(values > 0, betaln(a + 1, b + repeats - 1), -np.inf)[where] - (r + summary.x) * log_last
    either = np.logaddexp(staying, leaving)
    stayed = np.exp(staying - either)
    left = 1 - stayed
    n = len(summary.x)
    value = (gammaln(r + values)[where] + either).sum() + n * (r * np.log(alpha) - gammaln(r) - betaln(a, b))
    by_r = (psi(r + values)[where] - stayed * log_total - left * log_last).sum() + n * (np.log(alpha) - psi(r))
    by_alpha = n * r / alpha - ((r + summary.x) * (stayed / (alpha + summary.T) + left / (alpha + summary.t_x))).sum()
    both = psi(a + b + values)[where].sum() - n * psi(a + b)
    by_a = (left / a).sum() - both
    stay_b, leave_b = psi(b + values)[where], psi(b + repeats - 1)[where]
    by_b = (stayed * stay_b + left * leave_b).sum() - n * psi(b) - both
    return float(value), np.array([by_r, by_alpha, by_a, by_b])
