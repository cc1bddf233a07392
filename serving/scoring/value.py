"""Spending: what each customer is expected to spend within the horizon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from customers import money
from models.base import Model
from serving import scorer
from serving.scorer import Flags, Floats


@dataclass(frozen=True, slots=True)
class Worth:
    """What they will spend: a row a customer, in the frame's order, in the shop's currency."""

    expected: Floats
    horizon_days: int
    fallback: Flags


def worth(model: Model, frame: pd.DataFrame, *, currency: str) -> Worth:
    """The expected spend of every row of the frame, to the cent; nobody is expected to bring money back."""
    expected, fallback = scorer.or_typical(model, frame, np.atleast_1d(np.asarray(model.typical(), np.float64)))
    to_the_cent = np.round(np.maximum(expected[:, 0], 0.0), money.EXPONENTS[currency])
    return Worth(np.asarray(to_the_cent, np.float64), horizon_of(model), fallback)


def horizon_of(model: Any) -> int:
    """The days ahead that a value model speaks of."""
    return int(model.horizon_days)


def text(expected: float, currency: str) -> str:
    """Money as answers say it."""
    return money.text(money.minor(repr(float(expected)), currency), currency)
