"""BG/NBD: a buy-till-you-die model of purchase counts and dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, gammaln, hyp2f1, logit, psi

from models.base import Floats, require_columns
from models.result_cache import ResultCache, digest

# Centres and widths of the normal priors on log r, log(alpha / mean gap), log a and log b. They weigh as much as a
# handful of customers: negligible with thousands, and with one customer the estimates stay finite.
PRIOR_CENTRE = np.log([1.0, 1.0, 0.5, 2.0])
PRIOR_WIDTH = np.array([1.0, 1.5, 1.5, 1.5])
BOUND = 9.0
#: Probabilities are clipped to [MIN_PROBABILITY, 1 - MIN_PROBABILITY].
MIN_PROBABILITY = 1e-6


class PurchaseSummary(NamedTuple):
    """The purchase history of each customer in three arrays (n,): the input of buy-till-you-die models."""

    x: Floats  # purchases after the first
    t_x: Floats  # days from the first purchase to the last
    T: Floats  # days from the first purchase to the cutoff


def purchase_summary(frame: pd.DataFrame) -> PurchaseSummary:
    """Read the summary from columns purchase_days, span_days and tenure_days.

    A tenure of one day is a first purchase yesterday, the last observed day: T = tenure_days - 1. A row without
    purchases counts as a customer observed for no time.
    """
    require_columns(frame, ["purchase_days", "span_days", "tenure_days"])
    x = _non_negative(frame["purchase_days"]) - 1
    t_x = _non_negative(frame["span_days"])
    return PurchaseSummary(np.maximum(x, 0.0), t_x, np.maximum(_non_negative(frame["tenure_days"]) - 1, t_x))


def log_odds(probability: ArrayLike) -> Floats:
    """Log odds (n,) of probabilities (n,), clipped so that they stay finite."""
    odds: Floats = logit(np.clip(np.asarray(probability, dtype=np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    return odds


@dataclass(frozen=True, slots=True)
class BgNbd:
    """BG/NBD (Fader, Hardie and Lee 2005): purchases at a constant rate until dropout after a repeat purchase.

    Rates vary over customers as Gamma(r, alpha), dropout probabilities after a purchase as Beta(a, b); alpha is in
    days. 1 - p_alive is not churn: an alive customer may still not purchase within the horizon, and a customer without
    a repeat purchase is always alive here. Churn is `p_no_purchase`.
    """

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> Self:
        """Maximum a posteriori parameters, by the exact likelihood and weak priors; works from one customer on.

        x: (n,): purchases after the first.
        t_x: (n,): days from the first purchase to the last.
        T: (n,): days from the first purchase to the cutoff.
        """
        summary = as_summary(x, t_x, T)
        return cls(*_LATEST_FITS.get(digest(*summary), lambda: _fit_parameters(summary)))

    @classmethod
    def fit_frame(cls, frame: pd.DataFrame) -> Self:
        """The parameters of a frame of one cutoff, from columns purchase_days, span_days and tenure_days."""
        return cls.fit(*purchase_summary(frame))

    def p_alive(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> Floats:
        """P(no dropout by T | purchase history): array (n,)."""
        summary = as_summary(x, t_x, T)
        repeats = np.maximum(summary.x, 1.0)
        log_left_odds = np.log(self.a / (self.b + repeats - 1))
        log_left_odds += (self.r + summary.x) * np.log((self.alpha + summary.T) / (self.alpha + summary.t_x))
        return np.where(summary.x > 0, 1 / (1 + np.exp(np.minimum(log_left_odds, 700.0))), 1.0)

    def p_no_purchase(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, t: ArrayLike) -> Floats:
        """P(no purchase in the t days after T | purchase history), exact, dropout included: array (n,)."""
        summary = as_summary(x, t_x, T)
        alive = self.p_alive(*summary)
        return 1 - alive * -np.expm1(self._log_no_purchase(summary, np.asarray(t, dtype=np.float64)))

    def survival(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, days: int) -> Floats:
        """P(no purchase in the first d days after T | purchase history) for d = 1..days: array (n, days)."""
        summary = as_summary(x, t_x, T)
        alive = self.p_alive(*summary)[:, None]
        days_ahead = np.arange(1, days + 1, dtype=np.float64)[None, :]
        return 1 - alive * -np.expm1(
            self._log_no_purchase(PurchaseSummary(*(part[:, None] for part in summary)), days_ahead)
        )

    def no_purchase_log_odds_parts(self, summary: PurchaseSummary, days: int) -> tuple[Floats, Floats]:
        """Log odds of no purchase within these days as two parts (n,) that add up: a frequency and a recency effect.

        The first is the log odds had every customer bought on the cutoff day; the second is what the days since the
        last purchase add.
        """
        frequency_effect = log_odds(self.p_no_purchase(summary.x, summary.T, summary.T, days))
        return frequency_effect, log_odds(self.p_no_purchase(*summary, days)) - frequency_effect

    def expected_purchases(self, x: ArrayLike, t_x: ArrayLike, T: ArrayLike, t: ArrayLike) -> Floats:
        """The expected number of purchases in the t days after T | purchase history: array (n,)."""
        summary = as_summary(x, t_x, T)
        return self.p_alive(*summary) * self.expected_while_alive(summary.x, summary.T, t)

    def expected_while_alive(self, x: Floats, T: Floats, t: ArrayLike) -> Floats:
        """The expected number of purchases (n,) in the t days after T of a customer who is alive at T.

        Equation 10 of the paper after Euler's transformation of the hypergeometric function, which removes the large
        exponents: frequent customers do not overflow.
        """
        a = self.a if abs(self.a - 1) > 1e-6 else 1 + 1e-6  # a = 1 is a removable singularity
        c = a + self.b + x - 1
        c = np.where(np.abs(c) < 1e-6, 1e-6, c)
        days_ahead = np.asarray(t, dtype=np.float64)
        z = days_ahead / (self.alpha + T + days_ahead)
        hypergeometric = np.exp((a - 1) * np.log1p(-z)) * hyp2f1(a + self.b - 1 - self.r, a - 1, c, z)
        expected: Floats = c / (a - 1) * (1 - hypergeometric)
        return expected

    def rate(self, x: ArrayLike, T: ArrayLike) -> Floats:
        """Expected purchases per day while alive | purchase history, the mean of the posterior Gamma: array (n,)."""
        purchases, days = np.asarray(x, dtype=np.float64), np.asarray(T, dtype=np.float64)
        return np.asarray((self.r + purchases) / (self.alpha + days), dtype=np.float64)

    def _log_no_purchase(self, summary: PurchaseSummary, days_ahead: Floats) -> Floats:
        """log P(no purchase in the days ahead | alive), with the rate integrated over its posterior."""
        log_probability: Floats = -(self.r + summary.x) * np.log1p(days_ahead / (self.alpha + summary.T))
        return log_probability


#: Parameters of the latest fits: churn, timing and value fit the customers of the same cutoffs, several times each.
_LATEST_FITS: ResultCache[tuple[float, float, float, float]] = ResultCache(256)


def _fit_parameters(summary: PurchaseSummary) -> tuple[float, float, float, float]:
    """The parameters r, alpha, a and b of `BgNbd.fit`."""
    from scipy.optimize import minimize  # imported here: a server never fits

    scale = mean_gap_days(summary)
    scaled = PurchaseSummary(summary.x, summary.t_x / scale, summary.T / scale)
    optimum = minimize(_objective(scaled), PRIOR_CENTRE, jac=True, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * 4)
    r, alpha, a, b = np.exp(optimum.x)
    return float(r), float(alpha * scale), float(a), float(b)


def _non_negative(column: pd.Series[Any]) -> Floats:
    values: Floats = np.nan_to_num(column.to_numpy(dtype=np.float64, na_value=np.nan), posinf=0.0, neginf=0.0)
    return np.maximum(values, 0.0)


def as_summary(x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> PurchaseSummary:
    """The three arrays as float64 of shape (n,), n = 1 for one customer."""
    return PurchaseSummary(*(np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in (x, t_x, T)))


def mean_gap_days(summary: PurchaseSummary) -> float:
    """Mean days between purchases, over all customers."""
    return float(max(summary.T.sum(), 1.0) / (summary.x.sum() + 1.0))


def _objective(summary: PurchaseSummary) -> Any:
    """Minus the log posterior and its gradient, as a function of the logs of r, alpha, a and b."""
    # The special functions depend only on x, which has few distinct values: that makes 100,000 customers cheap.
    distinct_x, position = np.unique(summary.x, return_inverse=True)

    def objective(logs: Floats) -> tuple[float, Floats]:
        value, gradient = _log_likelihood(np.exp(logs), summary, distinct_x, position)
        deviation = (logs - PRIOR_CENTRE) / PRIOR_WIDTH
        return 0.5 * float(deviation @ deviation) - value, deviation / PRIOR_WIDTH - gradient * np.exp(logs)

    return objective


def _log_likelihood(
    parameters: Floats, summary: PurchaseSummary, distinct_x: Floats, position: NDArray[np.intp]
) -> tuple[float, Floats]:
    """The log likelihood and its gradient by (r, alpha, a, b); equation 6 of the paper."""
    r, alpha, a, b = parameters
    repeats = np.maximum(distinct_x, 1.0)
    log_total, log_last = np.log(alpha + summary.T), np.log(alpha + summary.t_x)
    staying = betaln(a, b + distinct_x)[position] - (r + summary.x) * log_total
    leaving = np.where(distinct_x > 0, betaln(a + 1, b + repeats - 1), -np.inf)[position] - (r + summary.x) * log_last
    either = np.logaddexp(staying, leaving)
    alive = np.exp(staying - either)
    dropped_out = 1 - alive
    n = len(summary.x)
    value = (gammaln(r + distinct_x)[position] + either).sum() + n * (r * np.log(alpha) - gammaln(r) - betaln(a, b))
    by_r = (psi(r + distinct_x)[position] - alive * log_total - dropped_out * log_last).sum() + n * (
        np.log(alpha) - psi(r)
    )
    by_alpha = (
        n * r / alpha - ((r + summary.x) * (alive / (alpha + summary.T) + dropped_out / (alpha + summary.t_x))).sum()
    )
    both = psi(a + b + distinct_x)[position].sum() - n * psi(a + b)
    by_a = (dropped_out / a).sum() - both
    stay_b, leave_b = psi(b + distinct_x)[position], psi(b + repeats - 1)[position]
    by_b = (alive * stay_b + dropped_out * leave_b).sum() - n * psi(b) - both
    return float(value), np.array([by_r, by_alpha, by_a, by_b])
