"""Run a backtest: predictions as of earlier cutoffs, of the model and every benchmark, against what followed.

At each cutoff the model is trained anew on what was known then, never taken from the champion; every benchmark gets the
same customers, products and days. Nothing in the home changes, except for a new run in MLflow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from customers.shop.settings import Shop
from models.registry import mlflow_registry
from pipelines.backtest import html_page
from pipelines.backtest.customer_models import backtest_customer_model
from pipelines.backtest.cutoffs import BacktestResult
from pipelines.backtest.offers import backtest_offers
from pipelines.backtest.recommender import backtest_recommender
from pipelines.errors import WrongUsage
from pipelines.nightly.run_context import ProgressCallback
from pipelines.reporting import plots
from training import promotion
from training.evaluation import method_comparison

BACKTESTS: dict[str, Callable[..., BacktestResult]] = {
    "recommender": backtest_recommender,
    "offers": backtest_offers,
} | {name: partial(backtest_customer_model, name=name) for name in ("churn", "timing", "restock", "value")}


def run_backtest(
    shop: Shop,
    name: str,
    *,
    cutoffs: int = 3,
    every: int | None = None,
    out: Path | None = None,
    progress: ProgressCallback,
) -> dict[str, Any]:
    """Backtest one model; write the table, its plots and an HTML page to a folder, and all of it to MLflow.

    Raises WrongUsage for a name without a backtest, NothingToDo where the records do not suffice.
    """
    if name not in BACKTESTS:
        raise WrongUsage(f"there is no backtest of {name}; there are {', '.join(BACKTESTS)}")
    started = time.perf_counter()
    result = BACKTESTS[name](shop, cutoffs=cutoffs, every=every, progress=progress)
    files = write_result(result, out or shop.home / "exports" / f"backtest-{name}")
    run_id = _log_run(shop, result, files)
    return {
        "name": name, "model": result.model, "cutoffs": result.cutoffs, "settings": result.settings,
        "notes": result.notes, "files": [str(path) for path in files], "run": run_id,
        "seconds": round(time.perf_counter() - started, 1), "table": json_records(result.table),
    }  # fmt: skip


def write_result(result: BacktestResult, folder: Path) -> list[Path]:
    """Write the table as CSV and JSON, plots where matplotlib is installed, and an HTML page; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    csv_path, json_path = folder / f"{result.name}.csv", folder / f"{result.name}.json"
    result.table.to_csv(csv_path, index=False)
    description = {"cutoffs": result.cutoffs, "settings": result.settings, "notes": result.notes}
    json_path.write_text(json.dumps(description | {"table": json_records(result.table)}, indent=1), encoding="utf-8")
    title = f"{result.name} as of {', '.join(result.cutoffs)}"
    plot_paths = [
        plots.plot_backtest(result.table, folder / f"{result.name}.png", title=title),
        plots.plot_curves(result.curves, folder / f"{result.name}-curves.png", name=result.name, title=title),
    ]
    drawn_paths = [path for path in plot_paths if path]
    return [
        csv_path,
        json_path,
        *drawn_paths,
        html_page.write_page(result, drawn_paths, folder / f"{result.name}.html", title=title),
    ]


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table for JSON, one dict per row with its columns as keys; a missing value is None."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _log_run(shop: Shop, result: BacktestResult, files: list[Path]) -> str:
    everyone = result.table[result.table["segment"] == method_comparison.ALL_CUSTOMERS].dropna(subset=["value"])
    metrics = {
        f"{_mlflow_name(str(method))}.{metric}": float(value)
        for method, metric, value in zip(everyone["method"], everyone["figure"], everyone["value"], strict=True)
    }
    settings = {_mlflow_name(method): method_settings for method, method_settings in result.settings.items()}
    return mlflow_registry.record_run(
        promotion.registry_uri(shop), f"backtest-{result.name}", metrics=metrics,
        params={"cutoffs": ", ".join(result.cutoffs), "model": result.model, **settings},
        artifacts={path.name: path for path in files},
    )  # fmt: skip


def _mlflow_name(method: str) -> str:
    """A method's name with only the characters that MLflow allows in the name of a metric."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in method.replace(", ", "_"))
