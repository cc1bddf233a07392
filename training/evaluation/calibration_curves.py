"""Reliability and gains curves, for what a table of metrics cannot show."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Number of steps of a gains curve.
GAINS_STEPS = 50


def reliability_curve(predicted: Floats, observed: Floats, bins: int = 10) -> pd.DataFrame:
    """Mean prediction and mean outcome by bin of customers: columns said, seen, customers.

    Bins are equally large (tenths by default), in order of the prediction. predicted, observed: (n,), probabilities and
    0 or 1, or amounts of money. `said` is the mean of predicted, `seen` that of observed.
    """
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    return pd.DataFrame(
        {
            "predicted": [float(np.mean(predicted[part])) for part in parts],
            "observed": [float(np.mean(observed[part])) for part in parts],
            "customers": [int(part.size) for part in parts],
        }
    )


def gains_curve(predicted: Floats, observed: Floats, steps: int = GAINS_STEPS) -> pd.DataFrame:
    """Share of the outcome that the customers with the highest predictions have: columns share, held.

    predicted, observed: (n,). `share` is of the customers, `held` of the outcome; a random order has held equal to
    share.
    """
    order = np.argsort(-predicted, kind="stable")
    total = float(np.sum(observed))
    cumulative = (
        np.concatenate([[0.0], np.cumsum(observed[order])]) / total if total > 0 else np.zeros(len(observed) + 1)
    )
    shares = np.linspace(0, 1, steps + 1)
    return pd.DataFrame({"share": shares, "held": np.interp(shares, np.linspace(0, 1, len(cumulative)), cumulative)})
