"""HTML page of a backtest: its plots, and every metric of every method with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.backtest.cutoffs import BacktestResult
from pipelines.reporting.terminal_text import METRIC_HEADINGS
from training.evaluation.method_comparison import ALL_CUSTOMERS

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td small{color:#777;display:block}tr.ours{font-weight:600}img{max-width:100%}"""


def write_page(result: BacktestResult, plot_paths: Sequence[Path], path: Path, *, title: str) -> Path:
    """Write the page to `path`; the plots lie in the same folder."""
    images = "".join(
        f'<p><img src="{escape(plot_path.name)}" alt="{escape(plot_path.stem)}"></p>' for plot_path in plot_paths
    )
    segments = [str(name) for name in result.table["segment"].drop_duplicates()]
    tables = "".join(_segment_table(result, name) for name in segments)
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    legend = f"In brackets, {escape(result.model)} minus the other. All intervals are 95 %, over customers."
    path.write_text(
        f"{head}<h1>{escape(title)}</h1><p>{legend}</p>{images}{tables}<ul>{notes}</ul>\n", encoding="utf-8"
    )
    return path


def _segment_table(result: BacktestResult, name: str) -> str:
    rows = result.table[result.table["segment"] == name]
    metrics = [metric for metric in METRIC_HEADINGS if (rows["figure"] == metric).any()]
    cells: dict[tuple[str, str], dict[str, Any]] = {
        (str(row["method"]), str(row["figure"])): {str(key): value for key, value in row.items()}
        for row in rows.to_dict("records")
    }
    head = "".join(f"<th>{escape(METRIC_HEADINGS[metric])}</th>" for metric in metrics)
    body = "".join(
        f"<tr{' class=ours' if method == result.model else ''}><td>{escape(method)}</td>"
        + "".join(f"<td>{_table_cell(cells.get((method, metric)))}</td>" for metric in metrics)
        + "</tr>"
        for method in rows["method"].drop_duplicates()
    )
    heading = "all" if name == ALL_CUSTOMERS else escape(name)
    return f"<h2>{heading}</h2><table><tr><th></th>{head}</tr>{body}</table>"


def _table_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    interval = "" if pd.isna(row["low"]) else f"<small>{row['low']:.4f} to {row['high']:.4f}</small>"
    ahead = "" if pd.isna(row["ahead"]) else f"<small>[{row['ahead']:+.4f}]</small>"
    return f"{row['value']:.4f}{interval}{ahead}"
