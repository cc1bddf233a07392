"""Backtest: what the shop would have been told at earlier moments, by its model and by every rival, and what came.

At each cutoff the model is made again from what was known then, never taken from the champion; every rival sees the
same customers, the same products and the same days. The home is left as it was, but for a run in MLflow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from customers.shop import Shop
from models import registry
from pipelines import page, pictures
from pipelines.earlier import Backtest
from pipelines.earlier_answers import answers
from pipelines.earlier_lists import recommender
from pipelines.earlier_offers import offers
from pipelines.evening import Tell
from pipelines.failures import WrongUsage
from training import backtest, promote

KINDS: dict[str, Callable[..., Backtest]] = {"recommender": recommender, "offers": offers} | {
    name: partial(answers, name=name) for name in ("churn", "timing", "restock", "value")
}


def run(
    shop: Shop, name: str, *, cutoffs: int = 3, every: int | None = None, out: Path | None = None, tell: Tell
) -> dict[str, Any]:
    """Backtest one question; write the table, its pictures and a page of both to a folder, and all of it to MLflow."""
    if name not in KINDS:
        raise WrongUsage(f"there is no backtest of {name}; there are {', '.join(KINDS)}")
    began = time.perf_counter()
    found = KINDS[name](shop, cutoffs=cutoffs, every=every, tell=tell)
    files = publish(found, out or shop.home / "exports" / f"backtest-{name}")
    run_id = _record(shop, found, files)
    return {
        "name": name, "model": found.model, "cutoffs": found.cutoffs, "settings": found.settings,
        "notes": found.notes, "files": [str(path) for path in files], "run": run_id,
        "seconds": round(time.perf_counter() - began, 1), "table": records(found.table),
    }  # fmt: skip


def publish(found: Backtest, folder: Path) -> list[Path]:
    """Write the table as CSV and JSON, pictures where they can be drawn, and a page that shows it all; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, told = folder / f"{found.name}.csv", folder / f"{found.name}.json"
    found.table.to_csv(table, index=False)
    about = {"cutoffs": found.cutoffs, "settings": found.settings, "notes": found.notes}
    told.write_text(json.dumps(about | {"table": records(found.table)}, indent=1), encoding="utf-8")
    title = f"{found.name} as of {', '.join(found.cutoffs)}"
    drawn = [
        pictures.backtest(found.table, folder / f"{found.name}.png", title=title),
        pictures.curves(found.curves, folder / f"{found.name}-curves.png", name=found.name, title=title),
    ]
    shown = [path for path in drawn if path]
    return [table, told, *shown, page.write(found, shown, folder / f"{found.name}.html", title=title)]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON holds them: what is not known is None."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _record(shop: Shop, found: Backtest, files: list[Path]) -> str:
    everyone = found.table[found.table["segment"] == backtest.EVERYONE].dropna(subset=["value"])
    figures = {
        f"{_plain(str(method))}.{figure}": float(value)
        for method, figure, value in zip(everyone["method"], everyone["figure"], everyone["value"], strict=True)
    }
    settings = {_plain(method): chosen for method, chosen in found.settings.items()}
    return registry.note(
        promote.address(shop), f"backtest-{found.name}", metrics=figures,
        params={"cutoffs": ", ".join(found.cutoffs), "model": found.model, **settings},
        artifacts={path.name: path for path in files},
    )  # fmt: skip


def _plain(method: str) -> str:
    """A method's name as MLflow lets figures be called."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in method.replace(", ", "_"))
