"""Bootstrap over customers (Efron 1979): how much a metric would vary with other customers of the same kind.

All observations of a customer, of every cutoff, are drawn together.
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
    """How often each customer occurs in each draw: `customers` ascending, `counts` (n_draws, n_customers)."""

    customers: NDArray[np.int64]
    counts: NDArray[np.int32]

    @classmethod
    def from_customers(cls, customers: NDArray[np.int64], *, draws: int = DRAWS, seed: int = 0) -> BootstrapDraws:
        """Draw as many customers as there are, with replacement, `draws` times; deterministic by seed.

        customers: (n,), with repetitions.
        """
        unique_customers = np.unique(customers)
        if not len(unique_customers):
            return cls(unique_customers, np.zeros((draws, 0), np.int32))
        counts = np.random.default_rng(seed).multinomial(
            len(unique_customers), np.full(len(unique_customers), 1 / len(unique_customers)), size=draws
        )
        return cls(unique_customers, counts.astype(np.int32))

    def means(self, values: pd.DataFrame) -> Floats:
        """Mean of every column in every draw, (n_draws, n_columns); NaN values are not observations.

        values: one row per observation, with customer_key as its index.
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
        """Metrics that are not means, such as a calibration error: one row per draw, one column per metric.

        customers: the customer of each observation, (n,). measure: metrics over observations, given their positions.
        """
        positions = np.searchsorted(self.customers, customers)
        rows = np.arange(len(customers))
        return pd.DataFrame([dict(measure(np.repeat(rows, drawn[positions]))) for drawn in self.counts])

    def aucs(self, customers: NDArray[np.int64], happened: Floats, p: Floats) -> Floats:
        """Area under the ROC curve over all observations in every draw, (n_draws,); ties in p count one half.

        customers, happened (0 or 1) and p: (n,).
        """
        positions = np.searchsorted(self.customers, customers)
        groups = (rankdata(p, method="dense") - 1).astype(np.int64)
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        positions, events = positions[order], happened[order]
        return np.array([_auc(drawn[positions], events, starts) for drawn in self.counts])


def _auc(weight: NDArray[np.int32], events: Floats, starts: NDArray[np.intp]) -> float:
    """Weighted AUC; entries by ascending p, those of equal p beginning at `starts`."""
    event_weights = np.add.reduceat(weight * events, starts)
    other_weights = np.add.reduceat(weight * (1 - events), starts)
    pairs = event_weights.sum() * other_weights.sum()
    return float(event_weights @ (np.cumsum(other_weights) - other_weights / 2) / pairs) if pairs else float("nan")


def percentile_interval(drawn: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Percentile interval per column of drawn (n_draws, n_columns): low and high, (n_columns,) each."""
    tail = (1 - level) / 2
    low, high = np.full((2, drawn.shape[1]), np.nan)
    has_draws = np.isfinite(drawn).any(axis=0)
    if has_draws.any():
        low[has_draws], high[has_draws] = np.nanquantile(drawn[:, has_draws], [tail, 1 - tail], axis=0)
    return low, high
