"""Bootstrap intervals over customers, on few enough customers to count by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from training.evaluation.bootstrap import BootstrapDraws, percentile_interval


def customer_values(**values: list[float]) -> pd.DataFrame:
    rows = [(int(key[1:]), value) for key, own in values.items() for value in own]
    return pd.DataFrame(rows, columns=["customer_key", "hit"]).set_index("customer_key")


def test_a_draw_takes_all_rows_of_a_customer() -> None:
    draws = BootstrapDraws(np.array([1, 2]), np.array([[2, 0], [1, 1]], np.int32))
    means = draws.means(customer_values(c1=[1.0, 0.0], c2=[1.0]))
    assert means.ravel().tolist() == [2 * 1 / (2 * 2), (1 + 1) / (2 + 1)]


def test_a_missing_value_does_not_count() -> None:
    draws = BootstrapDraws(np.array([1, 2]), np.array([[1, 1], [0, 2]], np.int32))
    means = draws.means(customer_values(c1=[1.0], c2=[np.nan])).ravel()
    assert means[0] == 1
    assert np.isnan(means[1])


def test_draws_are_reproducible_and_as_large_as_the_sample() -> None:
    first, second = (BootstrapDraws.from_customers(np.array([5, 3, 5, 9]), draws=50) for _ in range(2))
    assert first.customers.tolist() == [3, 5, 9]
    np.testing.assert_array_equal(first.counts, second.counts)
    assert (first.counts.sum(axis=1) == 3).all()


def test_the_interval_of_a_mean_is_two_standard_errors_wide() -> None:
    values = np.random.default_rng(1).normal(size=400)
    frame = pd.DataFrame({"x": values}, index=np.arange(400))
    low, high = percentile_interval(BootstrapDraws.from_customers(np.arange(400), draws=2_000).means(frame))
    error = values.std() / np.sqrt(400)
    assert (low[0], high[0]) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error
    )


def test_a_metric_without_observations_has_no_interval() -> None:
    low, high = percentile_interval(np.full((10, 1), np.nan))
    assert np.isnan([low[0], high[0]]).all()


def test_an_auc_is_that_of_the_customers_drawn() -> None:
    rng = np.random.default_rng(2)
    customers = np.repeat([1, 2, 3], 20)
    happened, p = (rng.random(60) < 0.4) * 1.0, rng.integers(0, 6, 60) / 6
    draws = BootstrapDraws(np.array([1, 2, 3]), np.array([[1, 1, 1], [2, 0, 1]], np.int32))
    drawn_rows = np.concatenate([np.flatnonzero(customers == customer) for customer in (1, 1, 3)])
    expected = [roc_auc_score(happened, p), roc_auc_score(happened[drawn_rows], p[drawn_rows])]
    assert draws.aucs(customers, happened, p) == pytest.approx(expected)


def test_a_metric_that_is_no_mean_is_recomputed_in_every_draw() -> None:
    draws = BootstrapDraws(np.array([1, 2]), np.array([[2, 0], [0, 1]], np.int32))
    spent = np.array([10.0, 2.0, 4.0])
    drawn = draws.resampled_metrics(
        np.array([2, 1, 1]), lambda positions: {"median": float(np.median(spent[positions]))}
    )
    assert drawn["median"].tolist() == [np.median([2.0, 2.0, 4.0, 4.0]), 10.0]
