"""Benchmarks: the methods of the literature that a backtest compares with the model, and the choice of their settings.

Settings are chosen once, on a window before the first reported one, by the metric that promotes models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.benchmarks import next_basket
from models.benchmarks.interaction_matrix import InteractionMatrix
from models.benchmarks.next_basket import BenchmarkMethod
from training.evaluation import ranking_metrics

#: Number of customers, evenly spread, on whom settings are compared; neighbours are searched among all customers.
TUNING_CUSTOMERS = 600


@dataclass(frozen=True, slots=True)
class TunedBenchmark:
    """A benchmark's name in tables, its method, and the grid from which its settings are chosen."""

    name: str
    fit: Callable[..., BenchmarkMethod]
    settings_grid: tuple[dict[str, Any], ...] = ({},)


def _settings_grid(**grid: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(next_basket.parameter_grid(grid))


#: TIFU-KNN's own settings for grocers, and some around those that tuning found on other shops.
_TIFU_KNN_GRID = (
    {"neighbours": 900, "within": 0.9, "between": 0.6, "alpha": 0.2, "groups": 3},
    *_settings_grid(neighbours=(300,), within=(0.9, 1.0), between=(0.7, 0.9), alpha=(0.4, 0.7), groups=(7,)),
    {"neighbours": 500, "within": 1.0, "between": 0.6, "alpha": 0.4, "groups": 14},
    {"neighbours": 300, "within": 1.0, "between": 0.9, "alpha": 0.1, "groups": 17},
)
#: Recent popularity and decayed frequency are not here: they are served baselines, and are measured as served.
BENCHMARKS = (
    TunedBenchmark("popularity, ever", next_basket.GlobalPopularity.fit),
    TunedBenchmark("personal frequency", next_basket.PersonalFrequency.fit),
    TunedBenchmark("TIFU-KNN", next_basket.TifuKnn.fit, _TIFU_KNN_GRID),
    TunedBenchmark(
        "UP-CF", next_basket.UpCf.fit, _settings_grid(recency=(5, 25, 100), asymmetry=(0.75,), locality=(5.0, 10.0))
    ),
    TunedBenchmark("implicit ALS", next_basket.ImplicitAls.fit),
    TunedBenchmark("item-kNN cosine", next_basket.ItemKnn.fit, ({"likeness": "cosine"},)),
    TunedBenchmark("item-kNN BM25", next_basket.ItemKnn.fit, ({"likeness": "bm25"},)),
)


def choose_settings(
    benchmark: TunedBenchmark, histories: InteractionMatrix, customers: NDArray[np.int64], truth: pd.DataFrame
) -> dict[str, Any]:
    """The settings whose lists of ten have the highest capped NDCG in the window of `truth`; the first of equals.

    customers: (n,). truth: columns customer_key, product_key, bought in the window.
    """
    if len(benchmark.settings_grid) == 1:
        return benchmark.settings_grid[0]
    sample = customers[np.linspace(0, len(customers) - 1, min(TUNING_CUSTOMERS, len(customers))).astype(np.int64)]
    sample_truth = truth[truth["customer_key"].isin(sample)]
    ndcg = [
        ranking_metrics.mean_metrics(ranked, sample_truth, at=(10,))["ndcg_10"]
        for ranked in _ranked_lists(benchmark, histories, sample)
    ]
    return benchmark.settings_grid[int(np.argmax(ndcg))]


def _ranked_lists(
    benchmark: TunedBenchmark, histories: InteractionMatrix, customers: NDArray[np.int64]
) -> Iterator[pd.DataFrame]:
    for settings in benchmark.settings_grid:
        yield next_basket.rank_lists(benchmark.fit(histories, **settings), histories, customers, n=10, lists=("any",))
