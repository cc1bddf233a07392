"""Curves: whether said is seen, and how much of what matters the first of a list hold; what tables cannot show."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Places at which a gains curve is told.
GAINS_STEPS = 50


def reliability_curve(predicted: Floats, observed: Floats, bins: int = 10) -> pd.DataFrame:
    """What was said and what came, on average, over tenths of the customers in order of what was said.

    said, seen: (n,), probabilities and 0 or 1, or amounts of money. Columns said, seen, customers.
    """
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    return pd.DataFrame(
        {
            "said": [float(np.mean(predicted[part])) for part in parts],
            "seen": [float(np.mean(observed[part])) for part in parts],
            "customers": [int(part.size) for part in parts],
        }
    )


def gains_curve(predicted: Floats, observed: Floats, steps: int = GAINS_STEPS) -> pd.DataFrame:
    """Which share of all that came the first so many of the customers hold, in order of what was said, largest first.

    Columns share (of the customers), held (of the outcome); a rule that knows nothing holds as much as its share.
    """
    order = np.argsort(-predicted, kind="stable")
    total = float(np.sum(observed))
    cumulative = (
        np.concatenate([[0.0], np.cumsum(observed[order])]) / total if total > 0 else np.zeros(len(observed) + 1)
    )
    shares = np.linspace(0, 1, steps + 1)
    return pd.DataFrame({"share": shares, "held": np.interp(shares, np.linspace(0, 1, len(cumulative)), cumulative)})
