"""Comparison of methods on the same customers as of the same cutoffs, with intervals, as one long table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from training.evaluation import ranking_metrics
from training.evaluation.bootstrap import BootstrapDraws, percentile_interval
from training.evaluation.next_basket_holdout import ACTIVITY_SEGMENTS

Floats = NDArray[np.float64]

COLUMNS = [
    "method",
    "segment",
    "figure",
    "value",
    "low",
    "high",
    "ahead",
    "ahead_low",
    "ahead_high",
    "observations",
]
ALL_CUSTOMERS = "all"
#: A mean over fewer customers of a segment depends more on each of them than on the model.
MIN_CUSTOMERS = 30
SMALL_SEGMENT_NOTE = f"metrics that fewer than {MIN_CUSTOMERS} customers of a segment have are left out"


def compare_methods(
    metrics_by_method: Mapping[str, pd.DataFrame],
    segments: pd.Series,
    *,
    model: str,
    min_customers: int = MIN_CUSTOMERS,
) -> pd.DataFrame:
    """One row per method, segment and metric: its mean with a 95 % interval, and the lead of the model over it.

    Columns: COLUMNS. metrics_by_method: for each method the same observations in the same order, one row each, with
    customer_key as index; NaN is no observation. segments: the segment of each observation, (n,). `ahead` is model
    minus method on the same customers, drawn together; NaN for the model itself. Of a segment, only metrics that at
    least min_customers customers have are reported.
    """
    groups = {ALL_CUSTOMERS: np.ones(len(segments), bool)}
    segment_names = [*ACTIVITY_SEGMENTS, *(name for name in pd.unique(segments) if name not in ACTIVITY_SEGMENTS)]
    groups |= {str(name): (segments == name).to_numpy() for name in segment_names}
    metrics_by_segment = {
        name: _reportable_metrics(
            metrics_by_method[model][is_in_segment], min_customers if name != ALL_CUSTOMERS else 0
        )
        for name, is_in_segment in groups.items()
    }
    parts = [
        _compare_means(
            {method: frame.loc[is_in_segment, metrics_by_segment[name]] for method, frame in metrics_by_method.items()},
            name,
            model,
        )
        for name, is_in_segment in groups.items()
        if metrics_by_segment[name] and is_in_segment.any()
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _reportable_metrics(metrics: pd.DataFrame, min_customers: int) -> list[str]:
    """The metrics that at least min_customers customers have."""
    return [str(name) for name, values in metrics.items() if values.dropna().index.nunique() >= min_customers]


def _compare_means(metrics_by_method: Mapping[str, pd.DataFrame], segment: str, model: str) -> pd.DataFrame:
    draws = BootstrapDraws.from_customers(metrics_by_method[model].index.to_numpy(np.int64))
    drawn = {method: draws.means(frame) for method, frame in metrics_by_method.items()}
    rows = [
        _comparison_rows(
            method,
            segment,
            [str(name) for name in frame],
            frame.mean().to_numpy(np.float64),
            drawn[method],
            metrics_by_method[model].mean().to_numpy(np.float64),
            drawn[model],
            frame.notna().sum().to_numpy(),
        )
        for method, frame in metrics_by_method.items()
    ]
    comparison = pd.concat(rows, ignore_index=True)
    comparison.loc[comparison["method"] == model, ["ahead", "ahead_low", "ahead_high"]] = np.nan
    return comparison


def _comparison_rows(
    method: str,
    segment: str,
    metric_names: list[str],
    value: Floats,
    drawn: Floats,
    model_value: Floats,
    model_drawn: Floats,
    count: NDArray[np.int64],
) -> pd.DataFrame:
    low, high = percentile_interval(drawn)
    ahead_low, ahead_high = percentile_interval(model_drawn - drawn)
    return pd.DataFrame(
        {
            "method": method,
            "segment": segment,
            "figure": metric_names,
            "value": value,
            "low": low,
            "high": high,
            "ahead": model_value - value,
            "ahead_low": ahead_low,
            "ahead_high": ahead_high,
            "observations": count,
        }
    )


def compare_drawn_metrics(
    estimates: Mapping[str, pd.Series],
    drawn: Mapping[str, pd.DataFrame],
    observations: int,
    *,
    segment: str,
    model: str,
) -> pd.DataFrame:
    """Rows for metrics that are not means over customers, with intervals from their bootstrap draws; columns COLUMNS.

    estimates: for each method its metrics by name. drawn: the same metrics as columns, one row per draw, drawn
    together.
    """
    names = [str(name) for name in estimates[model].index]
    count = np.full(len(names), observations)
    arrays = {
        method: (estimates[method][names].to_numpy(np.float64), drawn[method][names].to_numpy(np.float64))
        for method in estimates
    }
    rows = [_comparison_rows(method, segment, names, *each, *arrays[model], count) for method, each in arrays.items()]
    comparison = pd.concat(rows, ignore_index=True)
    comparison.loc[comparison["method"] == model, ["ahead", "ahead_low", "ahead_high"]] = np.nan
    return comparison


def overall_rows(metrics_by_method: Mapping[str, Mapping[str, float]], observations: int) -> pd.DataFrame:
    """Rows for metrics that no single customer has, such as coverage, without intervals; columns COLUMNS."""
    rows = [
        {"method": method, "segment": ALL_CUSTOMERS, "figure": name, "value": value, "observations": observations}
        for method, metrics in metrics_by_method.items()
        for name, value in metrics.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def compare_offers(
    customers: NDArray[np.int64],
    group: NDArray[np.int64],
    redeemed: Floats,
    probabilities: Mapping[str, Floats],
    segments: NDArray[np.object_],
    *,
    model: str,
    min_customers: int = MIN_CUSTOMERS,
) -> pd.DataFrame:
    """The same table for offers: MAP and NDCG@10 over groups (customer and campaign) with a redemption, and AUC.

    All arrays (n,), one entry per customer and offer; AUC is over all entries, redeemed or not. Columns: COLUMNS.
    """
    first = pd.DataFrame({"customer": customers, "segment": segments}).groupby(group).first()
    metrics_by_method = {
        method: ranking_metrics.metrics_per_group(group, redeemed, p) for method, p in probabilities.items()
    }
    scored_groups = first.loc[metrics_by_method[model].index]
    metrics_by_method = {
        method: frame.set_axis(scored_groups["customer"].to_numpy(np.int64))
        for method, frame in metrics_by_method.items()
    }
    ranked = compare_methods(
        metrics_by_method, scored_groups["segment"].reset_index(drop=True), model=model, min_customers=min_customers
    )
    return pd.concat([ranked, _compare_aucs(customers, redeemed, probabilities, model)], ignore_index=True)


def _compare_aucs(
    customers: NDArray[np.int64], redeemed: Floats, probabilities: Mapping[str, Floats], model: str, draws: int = 300
) -> pd.DataFrame:
    if not 0 < redeemed.sum() < redeemed.size:
        return pd.DataFrame(columns=COLUMNS)
    bootstrap = BootstrapDraws.from_customers(customers, draws=draws)
    drawn = {method: bootstrap.aucs(customers, redeemed, p)[:, None] for method, p in probabilities.items()}
    estimates = {method: float(roc_auc_score(redeemed, p)) for method, p in probabilities.items()}
    count = np.array([redeemed.size])
    rows = [
        _comparison_rows(
            method,
            ALL_CUSTOMERS,
            ["auc"],
            np.array([estimates[method]]),
            drawn[method],
            np.array([estimates[model]]),
            drawn[model],
            count,
        )
        for method in probabilities
    ]
    comparison = pd.concat(rows, ignore_index=True)
    comparison.loc[comparison["method"] == model, ["ahead", "ahead_low", "ahead_high"]] = np.nan
    return comparison
