"""Pictures: a backtest at a glance, each method a dot with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

#: The figures that are drawn, of whichever question was asked, with the words under them.
DRAWN = {
    "recall_10": "Recall@10",
    "ndcg_10": "NDCG@10",
    "new_hit_rate_10": "a hit on the list of new products",
    "trip_recall_10": "Recall@10, next trip",
    "map": "MAP",
    "auc": "AUC over all pairs",
}


def backtest(table: pd.DataFrame, path: Path, *, title: str) -> Path | None:
    """Draw the figures of everybody, a panel each, to a PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    everyone = table[table["segment"] == "all"]
    drawn = [name for name in DRAWN if (everyone["figure"] == name).any()]
    figure = Figure(figsize=(4 * max(len(drawn), 1), 4.5), layout="constrained")
    figure.suptitle(title)
    methods = list(everyone["method"].drop_duplicates())[::-1]
    panels: Any = figure.subplots(1, max(len(drawn), 1), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, drawn, strict=False):
        rows = everyone[everyone["figure"] == name].set_index("method").reindex(methods)
        places = range(len(methods))
        axes.errorbar(
            rows["value"], places, xerr=[rows["value"] - rows["low"], rows["high"] - rows["value"]], fmt="o", capsize=3
        )
        axes.set_yticks(places, methods)
        axes.set_xlabel(DRAWN[name])
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
    return path
