"""Intervals: how far a figure would move if the shop had happened to have other customers like these.

The bootstrap (Efron 1979) over customers: whoever was looked at at several moments is drawn with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]

DRAWS = 1_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class BootstrapDraws:
    """How often each customer comes up in each draw: customers rising, counts (draws, customers)."""

    customers: NDArray[np.int64]
    counts: NDArray[np.int32]

    @classmethod
    def from_customers(cls, customers: NDArray[np.int64], *, draws: int = DRAWS, seed: int = 0) -> BootstrapDraws:
        """Draw as many customers as there are, with replacement, `draws` times; the same for the same seed."""
        unique_customers = np.unique(customers)
        if not len(unique_customers):
            return cls(unique_customers, np.zeros((draws, 0), np.int32))
        counts = np.random.default_rng(seed).multinomial(
            len(unique_customers), np.full(len(unique_customers), 1 / len(unique_customers)), size=draws
        )
        return cls(unique_customers, counts.astype(np.int32))

    def means(self, values: pd.DataFrame) -> Floats:
        """The mean of every column in every draw, (draws, columns); NaN are no observations.

        values: one row an observation, its index the customer_key.
        """
        cells = values.to_numpy(np.float64)
        is_observed = np.isfinite(cells)
        positions = np.searchsorted(self.customers, values.index.to_numpy(np.int64))
        sums, counts = (np.zeros((len(self.customers), cells.shape[1])) for _ in range(2))
        np.add.at(sums, positions, np.where(is_observed, cells, 0.0))
        np.add.at(counts, positions, is_observed.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.counts @ sums) / (self.counts @ counts))

    def resampled_metrics(
        self, customers: NDArray[np.int64], measure: Callable[[NDArray[np.int64]], Mapping[str, float]]
    ) -> pd.DataFrame:
        """Figures that are no means, such as a calibration error: a row a draw, a column a figure.

        customers: whose each observation is; measure: the figures over some observations, given as their places.
        """
        positions = np.searchsorted(self.customers, customers)
        rows = np.arange(len(customers))
        return pd.DataFrame([dict(measure(np.repeat(rows, drawn[positions]))) for drawn in self.counts])

    def aucs(self, customers: NDArray[np.int64], happened: Floats, p: Floats) -> Floats:
        """The area under the ROC curve over all pairs in every draw, (draws,); equal p count one half."""
        positions = np.searchsorted(self.customers, customers)
        groups = (rankdata(p, method="dense") - 1).astype(np.int64)
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        positions, came = positions[order], happened[order]
        return np.array([_auc(drawn[positions], came, starts) for drawn in self.counts])


def _auc(weight: NDArray[np.int32], came: Floats, starts: NDArray[np.intp]) -> float:
    """Weighted AUC; entries by rising p, those of equal p beginning at `starts`."""
    yes = np.add.reduceat(weight * came, starts)
    no = np.add.reduceat(weight * (1 - came), starts)
    pairs = yes.sum() * no.sum()
    return float(yes @ (np.cumsum(no) - no / 2) / pairs) if pairs else float("nan")


def percentile_interval(drawn: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """The interval that holds this share of the draws, for each column."""
    tail = (1 - level) / 2
    low, high = np.full((2, drawn.shape[1]), np.nan)
    has_draws = np.isfinite(drawn).any(axis=0)
    if has_draws.any():
        low[has_draws], high[has_draws] = np.nanquantile(drawn[:, has_draws], [tail, 1 - tail], axis=0)
    return low, high
