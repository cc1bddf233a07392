"""LightGBM with default settings, on customers whose outcome follows from one feature."""

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData
from models.benchmarks.plain_lightgbm import CUSTOMER_COLUMNS, DefaultLightGbm


def customers(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({name: rng.uniform(0, 100, count) for name in CUSTOMER_COLUMNS})


def test_recent_customers_are_predicted_to_return() -> None:
    frame = customers(2_000)
    churned = (frame["recency_days"] > 50).to_numpy(np.float64)
    predicted = DefaultLightGbm.fit(frame, churned).score(frame)
    assert predicted[churned == 1].min() > 0.5 > predicted[churned == 0].max()


def test_amounts_are_never_negative_and_unknown_outcomes_are_ignored() -> None:
    frame = customers(2_000)
    spent = np.where(frame["purchase_days"] > 50, 10.0, 0.0)
    spent[:500] = np.nan
    predicted = DefaultLightGbm.fit(frame, spent, amounts=True).score(frame)
    assert predicted.min() >= 0
    assert predicted[frame["purchase_days"] > 50].mean() == pytest.approx(10, rel=0.1)


def test_too_few_outcomes_are_refused_with_their_number() -> None:
    with pytest.raises(InsufficientData, match="99 outcomes"):
        DefaultLightGbm.fit(customers(99), np.zeros(99))
