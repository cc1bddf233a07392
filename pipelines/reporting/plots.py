"""Plots of backtests and uplift: metrics with intervals, reliability, cumulative gains and Qini curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

#: The metrics that are drawn, of whichever task has them, and their axis labels.
METRIC_LABELS = {
    "recall_10": "Recall@10",
    "ndcg_10": "NDCG@10",
    "new_hit_rate_10": "a hit on the list of new products",
    "trip_recall_10": "Recall@10, next trip",
    "map": "MAP",
    "auc": "AUC",
    "log_loss": "log loss",
    "ece": "calibration error",
    "crps": "CRPS, days",
    "c_index": "concordance",
    "ngini": "normalised Gini",
    "mae": "mean absolute error",
    "decile_error": "decile error",
}
#: Axis labels by task: predicted, observed, and what the gains curve is a share of.
CURVE_LABELS = {
    "churn": ("predicted P(no purchase within the horizon)", "observed share without a purchase", "of all churned"),
    "timing": ("predicted P(purchase within four weeks)", "observed share with a purchase", "of all who returned"),
    "restock": ("predicted P(needed within two weeks)", "observed share bought again", "of all bought again"),
    "value": ("predicted spend", "observed spend", "of all spend"),
}


def plot_backtest(table: pd.DataFrame, path: Path, *, title: str) -> Path | None:
    """Draw the metrics of all customers to a PNG, one panel per metric; None where matplotlib is not installed.

    `table` has columns training.evaluation.method_comparison.COLUMNS; a dot and its 95 % interval is a method.
    """
    if (figure := _new_figure()) is None:
        return None
    everyone = table[table["segment"] == "all"]
    metrics = [name for name in METRIC_LABELS if (everyone["figure"] == name).any()]
    figure.set_size_inches(4 * max(len(metrics), 1), 4.5)
    figure.suptitle(title)
    methods = list(everyone["method"].drop_duplicates())[::-1]
    panels: Any = figure.subplots(1, max(len(metrics), 1), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, metrics, strict=False):
        rows = everyone[everyone["figure"] == name].set_index("method").reindex(methods)
        positions = range(len(methods))
        # Bootstrap draws overestimate a calibration error: the value may lie below its own interval.
        below, above = (rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)
        axes.errorbar(rows["value"], positions, xerr=[below, above], fmt="o", capsize=3)
        axes.set_yticks(positions, methods)
        axes.set_xlabel(METRIC_LABELS[name])
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
    return path


def plot_curves(tables: Mapping[str, pd.DataFrame], path: Path, *, name: str, title: str) -> Path | None:
    """Draw reliability (the diagonal is perfect) and cumulative gains of every method; None without matplotlib.

    `tables`: "reliability" with columns said (predicted), seen (observed), customers and "gains" with columns share,
    held, both with a column method.
    """
    if not tables or (figure := _new_figure()) is None:
        return None
    figure.set_size_inches(12, 5.5)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    reliability, gains = tables["reliability"], tables["gains"]
    limit = float(max(reliability["predicted"].max(), reliability["observed"].max()))
    left.plot([0, limit], [0, limit], color="black", linewidth=0.8)
    right.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for method in reliability["method"].drop_duplicates():
        style: dict[str, Any] = {"linewidth": 2.5} if method == "served" else {"linewidth": 1, "alpha": 0.7}
        left.plot(
            "predicted",
            "observed",
            data=reliability[reliability["method"] == method],
            marker="o",
            markersize=3,
            label=method,
            **style,
        )
        right.plot("share", "held", data=gains[gains["method"] == method], label=method, **style)
    x_label, y_label, share_label = CURVE_LABELS[name]
    left.set(xlabel=x_label, ylabel=y_label)
    right.set(xlabel="share of the list", ylabel=f"share {share_label}")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, dpi=120)
    return path


def plot_qini(curves_by_panel: Mapping[str, pd.DataFrame], path: Path, *, title: str) -> Path | None:
    """Draw Qini curves, the gain of contacting the highest predicted uplift first; None without matplotlib.

    `curves_by_panel` has a frame per outcome with columns learner, share, gain, low, high; the band is of the first
    learner.
    """
    if not curves_by_panel or (figure := _new_figure()) is None:
        return None
    figure.set_size_inches(6 * len(curves_by_panel), 5)
    figure.suptitle(title)
    panels: Any = figure.subplots(1, len(curves_by_panel), squeeze=False)[0]
    for axes, (panel_title, panel_curves) in zip(panels, curves_by_panel.items(), strict=True):
        for nth, (learner, curve) in enumerate(panel_curves.groupby("learner", sort=False)):
            axes.plot("share", "gain", data=curve, label=learner, linewidth=2.5 if nth == 0 else 1)
            if nth == 0:
                axes.fill_between(curve["share"], curve["low"], curve["high"], alpha=0.2)
                axes.plot([0, 1], [0, curve["gain"].iloc[-1]], color="black", linewidth=0.8, label="random order")
        axes.set_title(panel_title)
        axes.set_xlabel("share of customers contacted")
        axes.set_ylabel("gain per customer")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _new_figure() -> Any:
    """A figure to draw on; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(layout="constrained")
