"""Rivals: which methods of the literature a backtest measures beside the model, and how their settings are chosen.

Settings are chosen once, on a window before the first one that is reported, by the figure that promotes models.
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

#: Settings are compared on so many customers, evenly spread; neighbours are sought among everybody.
TUNING_CUSTOMERS = 600


@dataclass(frozen=True, slots=True)
class TunedBenchmark:
    """A rival's name in tables, its method, and the settings among which it may choose."""

    name: str
    fit: Callable[..., BenchmarkMethod]
    settings_grid: tuple[dict[str, Any], ...] = ({},)


def _settings_grid(**grid: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(next_basket.parameter_grid(grid))


#: TIFU-KNN's own settings for grocers, and those around what tuning found on other shops.
_TIFU_KNN_GRID = (
    {"neighbours": 900, "within": 0.9, "between": 0.6, "alpha": 0.2, "groups": 3},
    *_settings_grid(neighbours=(300,), within=(0.9, 1.0), between=(0.7, 0.9), alpha=(0.4, 0.7), groups=(7,)),
    {"neighbours": 500, "within": 1.0, "between": 0.6, "alpha": 0.4, "groups": 14},
    {"neighbours": 300, "within": 1.0, "between": 0.9, "alpha": 0.1, "groups": 17},
)
#: Popularity of late and decayed frequency are baselines of every night: those that are served are measured.
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
    """The settings whose lists of ten have the best capped NDCG in the window of `truth`; the first of equals."""
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
