"""Habits: how likely a customer is to buy again what they have bought before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models import shelves
from models.shelves import Floats, Ints, Shelves

FEATURES = ("weight_short", "weight_long", "times", "last_days", "popular", "lately", "repeated", "activity")


@dataclass(frozen=True)
class Appeal:
    """How a product fares with those who bought it: logarithms, one row a product, products rising.

    Columns: the share of customers who bought it within the window (`popular`), the share of its buyers who
    did (`lately`), and the share of its buyers who came back for it (`repeated`). `usual` is for any other.
    """

    products: Ints
    values: Floats
    usual: Floats

    def of(self, products: Ints) -> Floats:
        """The three columns for these products."""
        values = np.tile(self.usual, (len(products), 1))
        places, sold = shelves.find(self.products, products)
        values[sold] = self.values[places[sold]]
        return values


def appeal(stock: Shelves, *, window_days: int, doubt: float = 5.0) -> Appeal:
    """Measure every product; shares of few buyers are drawn to the usual one, as by `doubt` more."""
    products, place = np.unique(stock.products, return_inverse=True)
    owners = np.bincount(place, minlength=len(products)).astype(np.float64)
    lately = np.bincount(place, stock.columns["last_days"] <= window_days, len(products))
    repeated = np.bincount(place, stock.columns["times"] > 1, len(products))
    popular = np.log((lately + 1.0) / (len(stock) + 1.0))
    shares = [_drawn(count, owners, doubt) for count in (lately, repeated)]
    values = np.column_stack([popular, *(share for share, _ in shares)])
    return Appeal(products, values, np.array([-np.log(len(stock) + 1.0), *(usual for _, usual in shares)]))


def _drawn(count: NDArray[Any], owners: Floats, doubt: float) -> tuple[Floats, float]:
    usual = (count.sum() + 0.5) / (owners.sum() + 1.0)
    return np.log((count + doubt * usual) / (owners + doubt)), float(np.log(usual))


def columns(half_lives: Sequence[int]) -> list[str]:
    """The columns of a shelf that habits are read from."""
    return ["times", "last_days", shelves.weights_name(half_lives[0]), shelves.weights_name(half_lives[-1])]


@dataclass(frozen=True)
class Habits:
    """A logistic regression over what a customer has bought: its log-odds rank their own products."""

    slopes: Floats
    intercept: float
    half_lives: tuple[int, int]
    appeal: Appeal

    def strength(self, stock: Shelves) -> Floats:
        """The log-odds, an entry each, that the customer buys the product within the window."""
        return features(stock, self.appeal, self.half_lives) @ self.slopes + self.intercept

    def arrays(self) -> dict[str, Any]:
        """All that was learned."""
        return {
            "slopes": np.append(self.slopes, self.intercept),
            "half_lives": np.array(self.half_lives),
            "appeal_products": self.appeal.products,
            "appeal_values": self.appeal.values,
            "appeal_usual": self.appeal.usual,
        }

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Self:
        """The same habits, from what `arrays` gave."""
        short, long = (int(days) for days in arrays["half_lives"])
        appeal = Appeal(arrays["appeal_products"], arrays["appeal_values"], arrays["appeal_usual"])
        return cls(arrays["slopes"][:-1], float(arrays["slopes"][-1]), (short, long), appeal)


def features(stock: Shelves, appeal: Appeal, half_lives: Sequence[int]) -> Floats:
    """FEATURES of every entry of the shelves: (entries, 8), all logarithms."""
    short, long = stock.weights(half_lives[0]), stock.weights(half_lives[-1])
    own = [np.log(short + 0.01), np.log(long + 1e-6), np.log(np.maximum(stock.columns["times"], 1.0))]
    recency = np.log1p(np.maximum(stock.columns["last_days"], 0.0))
    return np.column_stack([*own, recency, appeal.of(stock.products), activity(stock, half_lives[0])[stock.rows]])


def activity(stock: Shelves, half_life: int) -> Floats:
    """How much each customer has bought of late: the logarithm of all their decayed purchases."""
    bought = np.bincount(stock.rows, stock.weights(half_life), minlength=len(stock))
    return np.asarray(np.log(bought + 0.1))


def learn(examples: Sequence[tuple[Floats, shelves.Flags]], half_lives: Sequence[int], appeal: Appeal) -> Habits:
    """Fit on features and outcomes of one or more moments; `appeal` is that of the moment it will serve."""
    rows = np.concatenate([part for part, _ in examples])
    fitted = logistic(rows, np.concatenate([part for _, part in examples]))
    return Habits(fitted[:-1], float(fitted[-1]), (half_lives[0], half_lives[-1]), appeal)


def logistic(rows: Floats, outcome: NDArray[Any]) -> Floats:
    """Slopes and intercept of a logistic regression with a light ridge on the standardised columns."""
    centre, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
    wide = np.column_stack([(rows - centre) / spread, np.ones(len(rows))])
    fitted = _newton(wide, outcome.astype(np.float64))
    slopes = fitted[:-1] / spread
    return np.append(slopes, fitted[-1] - centre @ slopes)


def _newton(wide: Floats, came: Floats, *, ridge: float = 1.0, steps: int = 25) -> Floats:
    penalty = np.append(np.full(wide.shape[1] - 1, ridge), 1e-6)
    share = (came.sum() + 0.5) / (len(came) + 1.0)
    now = np.append(np.zeros(wide.shape[1] - 1), np.log(share / (1.0 - share)))
    loss = _loss(wide, came, penalty, now)
    for _ in range(steps):
        chance = expit(wide @ now)
        slope = wide.T @ (came - chance) - penalty * now
        bend = (wide.T * (chance * (1.0 - chance))) @ wide + np.diag(penalty)
        now, after = _step(wide, came, penalty, now, np.linalg.solve(bend, slope), loss)
        if loss - after < 1e-8 * abs(loss):
            break
        loss = after
    return now


def _loss(wide: Floats, came: Floats, penalty: Floats, at: Floats) -> float:
    odds = wide @ at
    return float(np.sum(np.logaddexp(0.0, odds) - came * odds) + 0.5 * np.sum(penalty * at**2))


def _step(wide: Floats, came: Floats, penalty: Floats, now: Floats, move: Floats, loss: float) -> tuple[Floats, float]:
    for halving in range(20):
        there = now + move * 0.5**halving
        after = _loss(wide, came, penalty, there)
        if after <= loss:
            return there, after
    return now, loss
