"""Spending: what a visit is usually worth, and the plain rules of what a customer will spend."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import gammaln, psi

from models import btyd, level
from models.base import FILE, Floats, TooLittle, read_json, require, write_json

COUNT, TOTAL, TENURE = "purchase_days", "spend_total", "tenure_days"
#: A rate over fewer days than this would take a first basket for a habit.
SHORTEST_DAYS = 28
FEWEST = 30
#: What was spent over the whole horizon (NaN = not known yet); or spent, and the days over which, as columns.
Outcome = pd.DataFrame | pd.Series | Floats
# Centres and widths of the normal priors on log p, log(q - 1) and log(gamma / typical spend): a handful of customers.
PRIOR_CENTRE = np.log([4.0, 3.0, 1.0])
PRIOR_WIDTH = np.array([1.0, 1.0, 1.0])
BOUND = 9.0


@dataclass(frozen=True, slots=True)
class GammaGamma:
    """What a purchase is worth (Fader, Hardie and Lee 2005): steady for a customer, different between customers.

    A customer's spends vary as Gamma(p, v), and v over customers as Gamma(q, gamma); gamma is in money.
    """

    p: float
    q: float
    gamma: float

    @classmethod
    def fit(cls, x: ArrayLike, mean: ArrayLike) -> Self:
        """The most probable parameters; x: purchases of each customer, mean: what they were worth on average.

        All purchases count, the first too: on Online Retail II that ranks customers better than repeats alone.
        """
        count, money = (np.asarray(part, dtype=np.float64) for part in (x, mean))
        told = (count > 0) & np.isfinite(money) & (money > 0)
        if not told.any():
            return cls(1.0, 2.0, 0.0)
        scale = float(np.average(money[told], weights=count[told]))
        objective = _objective(count[told], money[told] / scale)
        found = minimize(objective, PRIOR_CENTRE, jac=True, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * 3)
        p, beyond, gamma = np.exp(found.x)
        return cls(float(p), float(1 + beyond), float(gamma * scale))

    def expected(self, x: ArrayLike, mean: ArrayLike) -> Floats:
        """What the next purchase is worth, given how many there were and their mean; all customers' for none."""
        count, money = (np.nan_to_num(np.asarray(part, dtype=np.float64)) for part in (x, mean))
        worth: Floats = self.p * (self.gamma + count * np.maximum(money, 0.0)) / (self.p * count + self.q - 1)
        return worth


@dataclass(frozen=True)
class BgNbdGammaGamma:
    """Buy till you die, times what a visit is worth, times what the season made of it a year ago. Needs no outcomes."""

    rhythm: btyd.BgNbd
    worth: GammaGamma
    horizon_days: int
    mean: float
    season: float = 1.0

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Outcome, *, seed: int = 0, horizon_days: int = 90) -> Self:
        """Fit the latest moment's customers; outcomes, if there are any, give what is typical, and the season."""
        now = btyd.latest(frame)
        rhythm, worth = fitted(now)
        spent = whole(label, horizon_days)
        known = spent[np.isfinite(spent)]
        mean = float(np.mean(known if len(known) else expected(rhythm, worth, now, horizon_days)))
        return cls(rhythm, worth, horizon_days, mean, season(frame, spent, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon."""
        return self.season * expected(self.rhythm, self.worth, frame, self.horizon_days)

    def typical(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the parameters."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        saved = read_json(folder / FILE)
        rhythm, worth = btyd.BgNbd(**saved["rhythm"]), GammaGamma(**saved["worth"])
        return cls(rhythm, worth, saved["horizon_days"], saved["mean"], saved["season"])


@dataclass(frozen=True)
class RateValue:
    """They will go on spending as they have on average since their first purchase."""

    horizon_days: int
    mean: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Outcome, *, seed: int = 0, horizon_days: int = 90) -> Self:
        """There is nothing to learn but what is typical."""
        return cls(horizon_days, float(np.mean(known_spends(frame, label, horizon_days)[1])))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon."""
        require(frame, [TOTAL, TENURE])
        total, days = (np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan)) for name in (TOTAL, TENURE))
        rate: Floats = np.maximum(total, 0.0) / np.maximum(days, SHORTEST_DAYS) * self.horizon_days
        return rate

    def typical(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the two numbers."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        return cls(**read_json(folder / FILE))


def outcomes(label: Outcome, horizon_days: int) -> tuple[Floats, Floats]:
    """What each row's customer spent, and over how many days: a frame's spent and days, or the whole horizon's.

    Of an array, NaN = not known yet, and no day of it is.
    """
    if isinstance(label, pd.DataFrame):
        require(label, ["spent", "days"])
        spent, days = (label[name].to_numpy(np.float64, na_value=np.nan) for name in ("spent", "days"))
        return np.where(days > 0, spent, np.nan), np.nan_to_num(days)
    known = np.asarray(label, dtype=np.float64)
    return known, np.where(np.isfinite(known), float(horizon_days), 0.0)


def whole(label: Outcome, horizon_days: int) -> Floats:
    """What was spent over the whole horizon; NaN where it is not over."""
    spent, days = outcomes(label, horizon_days)
    return np.where(days >= horizon_days, spent, np.nan)


def known_spends(frame: pd.DataFrame, label: Outcome, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The rows whose outcome is known, with it. Raises TooLittle with fewer than 30 who spent anything."""
    spent = whole(label, horizon_days)
    rows = np.isfinite(spent)
    buyers = int((spent[rows] > 0).sum())
    if buyers < FEWEST:
        raise TooLittle(
            f"{buyers} customers were seen spending over {horizon_days} days and {FEWEST} are needed; "
            "load a longer history or choose a smaller value_days"
        )
    return frame[rows], spent[rows]


def fitted(now: pd.DataFrame) -> tuple[btyd.BgNbd, GammaGamma]:
    """The rhythm of one moment's customers, and what their purchases are worth."""
    return btyd.BgNbd.fit_frame(now), GammaGamma.fit(*spends(now))


def season(frame: pd.DataFrame, spent: Floats, horizon_days: int) -> float:
    """What came a year ago over what rhythm and worth then expected; 1 where nobody can say."""
    return level.season(frame, spent, horizon_days, lambda then: expected(*fitted(then), then, horizon_days))


def spends(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    """How many purchase days each row's customer has, and what they were worth on average."""
    require(frame, [COUNT, TOTAL])
    count, total = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in (COUNT, TOTAL))
    return count, np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def expected(rhythm: btyd.BgNbd, worth: GammaGamma, frame: pd.DataFrame, days: int) -> Floats:
    """Expected purchases in the days ahead, times what one is worth."""
    purchases = rhythm.expected_purchases(*btyd.history(frame), days)
    return np.maximum(purchases, 0.0) * worth.expected(*spends(frame))


def _objective(count: Floats, money: Floats) -> Any:
    """Minus the log posterior and its gradient, as a function of log p, log(q - 1) and log gamma."""

    def objective(logs: Floats) -> tuple[float, Floats]:
        p, beyond, gamma = np.exp(logs)
        value, gradient = _log_likelihood(p, 1 + beyond, gamma, count, money)
        off = (logs - PRIOR_CENTRE) / PRIOR_WIDTH
        return 0.5 * float(off @ off) - value, off / PRIOR_WIDTH - gradient * np.exp(logs)

    return objective


def _log_likelihood(p: float, q: float, gamma: float, x: Floats, mean: Floats) -> tuple[float, Floats]:
    """The log likelihood of the customers' mean spends and its gradient by (p, q, gamma)."""
    shape, total, joined = p * x, x * mean, np.log(gamma + x * mean)
    value = gammaln(shape + q) - gammaln(shape) + shape * np.log(total) - np.log(mean) - (shape + q) * joined
    n = len(x)
    by_p = (x * (psi(shape + q) - psi(shape) + np.log(total) - joined)).sum()
    by_q = (psi(shape + q) - joined).sum() + n * (np.log(gamma) - psi(q))
    by_gamma = n * q / gamma - ((shape + q) / (gamma + total)).sum()
    return float(value.sum() + n * (q * np.log(gamma) - gammaln(q))), np.array([by_p, by_q, by_gamma])
