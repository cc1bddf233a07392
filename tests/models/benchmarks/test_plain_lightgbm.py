"""What people try first, on a shop where the answer is plain."""

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData
from models.benchmarks.plain_lightgbm import CUSTOMER_COLUMNS, DefaultLightGbm


def customers(count: int) -> pd.DataFrame:
    chance = np.random.default_rng(1)
    return pd.DataFrame({name: chance.uniform(0, 100, count) for name in CUSTOMER_COLUMNS})


def test_whoever_was_here_lately_comes_back() -> None:
    frame = customers(2_000)
    quiet = (frame["recency_days"] > 50).to_numpy(np.float64)
    said = DefaultLightGbm.fit(frame, quiet).score(frame)
    assert said[quiet == 1].min() > 0.5 > said[quiet == 0].max()


def test_amounts_are_never_negative_and_unknown_outcomes_teach_nothing() -> None:
    frame = customers(2_000)
    spent = np.where(frame["purchase_days"] > 50, 10.0, 0.0)
    spent[:500] = np.nan
    said = DefaultLightGbm.fit(frame, spent, amounts=True).score(frame)
    assert said.min() >= 0
    assert said[frame["purchase_days"] > 50].mean() == pytest.approx(10, rel=0.1)


def test_too_few_outcomes_are_refused_in_words() -> None:
    with pytest.raises(InsufficientData, match="99 outcomes"):
        DefaultLightGbm.fit(customers(99), np.zeros(99))
