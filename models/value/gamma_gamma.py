"""The Gamma-Gamma model of spend per purchase (Fader, Hardie and Lee 2005)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import gammaln, psi

from models.base import Floats, require_columns
from models.btyd import bg_nbd

COUNT_COLUMN, TOTAL_COLUMN, TENURE_COLUMN = "purchase_days", "spend_total", "tenure_days"
#: Minimum days of a spending rate: over fewer, a first basket would look like a regular rate.
MIN_RATE_DAYS = 28
# Centres and widths of the normal priors on log p, log(q - 1) and log(gamma / mean spend): they weigh as much as a
# handful of customers.
PRIOR_CENTRE = np.log([4.0, 3.0, 1.0])
PRIOR_WIDTH = np.array([1.0, 1.0, 1.0])
BOUND = 9.0


@dataclass(frozen=True, slots=True)
class GammaGamma:
    """Spend per purchase (Fader, Hardie and Lee 2005): stable for a customer, different between customers.

    A customer's spend varies as Gamma(p, v), and v over customers as Gamma(q, gamma); gamma is in money.
    """

    p: float
    q: float
    gamma: float

    @classmethod
    def fit(cls, x: ArrayLike, mean: ArrayLike) -> Self:
        """Maximum a posteriori parameters.

        x: (n,): number of purchases.
        mean: (n,): mean spend per purchase.

        All purchases count, the first too: on Online Retail II that ranks customers better than repeat purchases alone.
        """
        from scipy.optimize import minimize  # imported here: a server never fits

        count, money = (np.asarray(part, dtype=np.float64) for part in (x, mean))
        has_spend = (count > 0) & np.isfinite(money) & (money > 0)
        if not has_spend.any():
            return cls(1.0, 2.0, 0.0)
        scale = float(np.average(money[has_spend], weights=count[has_spend]))
        objective = _objective(count[has_spend], money[has_spend] / scale)
        optimum = minimize(objective, PRIOR_CENTRE, jac=True, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * 3)
        p, q_minus_1, gamma = np.exp(optimum.x)
        return cls(float(p), float(1 + q_minus_1), float(gamma * scale))

    def expected_spend(self, x: ArrayLike, mean: ArrayLike) -> Floats:
        """Expected spend per purchase (n,), given the number of purchases and their mean; overall mean for none."""
        count, money = (np.nan_to_num(np.asarray(part, dtype=np.float64)) for part in (x, mean))
        spend: Floats = self.p * (self.gamma + count * np.maximum(money, 0.0)) / (self.p * count + self.q - 1)
        return spend


def fit_bgnbd_and_spend(latest: pd.DataFrame) -> tuple[bg_nbd.BgNbd, GammaGamma]:
    """Fit BG/NBD and Gamma-Gamma to the rows of one cutoff; columns as in the two models."""
    return bg_nbd.BgNbd.fit_frame(latest), GammaGamma.fit(*count_and_mean_spend(latest))


def count_and_mean_spend(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    """Number of purchase days (n,) and mean spend per purchase day (n,), NaN without purchases."""
    require_columns(frame, [COUNT_COLUMN, TOTAL_COLUMN])
    count, total = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in (COUNT_COLUMN, TOTAL_COLUMN))
    return count, np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def expected_spend(bgnbd: bg_nbd.BgNbd, spend_model: GammaGamma, frame: pd.DataFrame, days: int) -> Floats:
    """Expected purchases in the days ahead x expected spend per purchase: array (n,)."""
    purchases = bgnbd.expected_purchases(*bg_nbd.purchase_summary(frame), days)
    return np.maximum(purchases, 0.0) * spend_model.expected_spend(*count_and_mean_spend(frame))


def _objective(count: Floats, money: Floats) -> Any:
    """Minus the log posterior and its gradient, as a function of log p, log(q - 1) and log gamma."""

    def objective(logs: Floats) -> tuple[float, Floats]:
        p, q_minus_1, gamma = np.exp(logs)
        value, gradient = _log_likelihood(p, 1 + q_minus_1, gamma, count, money)
        deviation = (logs - PRIOR_CENTRE) / PRIOR_WIDTH
        return 0.5 * float(deviation @ deviation) - value, deviation / PRIOR_WIDTH - gradient * np.exp(logs)

    return objective


def _log_likelihood(p: float, q: float, gamma: float, x: Floats, mean: Floats) -> tuple[float, Floats]:
    """The log likelihood of the customers' mean spend and its gradient by (p, q, gamma)."""
    shape, total, joined = p * x, x * mean, np.log(gamma + x * mean)
    value = gammaln(shape + q) - gammaln(shape) + shape * np.log(total) - np.log(mean) - (shape + q) * joined
    n = len(x)
    by_p = (x * (psi(shape + q) - psi(shape) + np.log(total) - joined)).sum()
    by_q = (psi(shape + q) - joined).sum() + n * (np.log(gamma) - psi(q))
    by_gamma = n * q / gamma - ((shape + q) / (gamma + total)).sum()
    return float(value.sum() + n * (q * np.log(gamma) - gammaln(q))), np.array([by_p, by_q, by_gamma])
