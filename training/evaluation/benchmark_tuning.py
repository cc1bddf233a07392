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

from models import rivals
from models.histories import Histories
from models.rivals import Rival
from training import lists

#: Settings are compared on so many customers, evenly spread; neighbours are sought among everybody.
TRIED_ON = 600


@dataclass(frozen=True, slots=True)
class Entrant:
    """A rival's name in tables, its method, and the settings among which it may choose."""

    name: str
    fit: Callable[..., Rival]
    tries: tuple[dict[str, Any], ...] = ({},)


def _each(**grid: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(rivals.settings_of(grid))


#: TIFU-KNN's own settings for grocers, and those around what tuning found on other shops.
_TIFU = (
    {"neighbours": 900, "within": 0.9, "between": 0.6, "alpha": 0.2, "groups": 3},
    *_each(neighbours=(300,), within=(0.9, 1.0), between=(0.7, 0.9), alpha=(0.4, 0.7), groups=(7,)),
    {"neighbours": 500, "within": 1.0, "between": 0.6, "alpha": 0.4, "groups": 14},
    {"neighbours": 300, "within": 1.0, "between": 0.9, "alpha": 0.1, "groups": 17},
)
#: Popularity of late and decayed frequency are baselines of every night: those that are served are measured.
ENTRANTS = (
    Entrant("popularity, ever", rivals.Everybody.fit),
    Entrant("personal frequency", rivals.Frequency.fit),
    Entrant("TIFU-KNN", rivals.TifuKnn.fit, _TIFU),
    Entrant("UP-CF", rivals.UpCf.fit, _each(recency=(5, 25, 100), asymmetry=(0.75,), locality=(5.0, 10.0))),
    Entrant("implicit ALS", rivals.Als.fit),
    Entrant("item-kNN cosine", rivals.ItemKnn.fit, ({"likeness": "cosine"},)),
    Entrant("item-kNN BM25", rivals.ItemKnn.fit, ({"likeness": "bm25"},)),
)


def choose(entrant: Entrant, histories: Histories, customers: NDArray[np.int64], truth: pd.DataFrame) -> dict[str, Any]:
    """The settings whose lists of ten have the best capped NDCG in the window of `truth`; the first of equals."""
    if len(entrant.tries) == 1:
        return entrant.tries[0]
    some = customers[np.linspace(0, len(customers) - 1, min(TRIED_ON, len(customers))).astype(np.int64)]
    asked = truth[truth["customer_key"].isin(some)]
    figures = [lists.ranking(shown, asked, at=(10,))["ndcg_10"] for shown in _tries(entrant, histories, some)]
    return entrant.tries[int(np.argmax(figures))]


def _tries(entrant: Entrant, histories: Histories, customers: NDArray[np.int64]) -> Iterator[pd.DataFrame]:
    for settings in entrant.tries:
        yield rivals.ranked(entrant.fit(histories, **settings), histories, customers, n=10, lists=("any",))
