"""The recommender task: labels, training rows, metrics."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from models.recommender.ranked_lists import SOURCES
from training import labels
from training.evaluation import ranking_metrics
from training.tasks.task import Frame, TrainingData

#: Length of the window in days; a month is what a campaign is planned for.
LIST_DAYS = 28


def list_window_days(training_data: TrainingData) -> int:
    """Length of the window in days: LIST_DAYS, or a quarter of the history."""
    return max(1, min(LIST_DAYS, training_data.calendar.history_days // 4))


def label_baskets(training_data: TrainingData, rows: Frame, until: date) -> pd.Series:
    """Array of products bought in the window after as_of, (n,); None where that is not over by `until`."""
    calendar = training_data.calendar
    complete_baskets = {
        cutoff: frame
        for cutoff, frame in training_data.baskets.items()
        if calendar.days_before_run(cutoff) - list_window_days(training_data) >= (calendar.complete_until - until).days
    }
    return labels.products_bought_next(rows, complete_baskets)


def evaluate_lists(training_data: TrainingData, rows: Frame, truth: pd.Series, ranked: Frame) -> dict[str, float]:
    """Ranking metrics of lists, with variety and sources of the list `any`, and the list `new` against first purchases.

    rows: columns customer_key, product_keys (bought before). truth: arrays of products bought, (n,). ranked: columns
    customer_key, list, rank, product_key, source.
    """
    bought = pd.DataFrame({"customer_key": rows["customer_key"].to_numpy(), "product_key": truth.to_numpy()})
    bought = bought.explode("product_key").dropna().astype({"product_key": "int64"})
    before = rows[["customer_key", "product_keys"]].explode("product_keys").dropna()
    before = before.rename(columns={"product_keys": "product_key"}).astype({"product_key": "int64"})
    new_purchases = bought.merge(before, how="left", indicator=True)
    new_purchases = new_purchases.loc[new_purchases["_merge"] == "left_only", ["customer_key", "product_key"]]
    merged, new = (ranked[ranked["list"] == name] for name in ("any", "new"))
    new_list_metrics = {
        f"new_{name}": value for name, value in ranking_metrics.mean_metrics(new, new_purchases, at=(10,)).items()
    }
    shares = {f"source_{name}": 0.0 for name in SOURCES} | ranking_metrics.source_shares(merged)
    variety = ranking_metrics.variety_metrics(merged, catalogue=before["product_key"].nunique()) | shares
    return ranking_metrics.mean_metrics(merged, bought) | variety | new_list_metrics


def has_purchases(training_data: TrainingData, rows: Frame, truth: pd.Series) -> np.ndarray:
    """Mask (n,) of rows with at least one product bought: for the others no list can be right."""
    return np.array([products is not None and len(products) > 0 for products in truth], dtype=bool)
