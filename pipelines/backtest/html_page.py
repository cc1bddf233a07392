"""Page: a backtest to look at in a browser: its pictures, and every figure of every method with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.earlier import Backtest
from pipelines.report import HEADINGS
from training.backtest import EVERYONE

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td small{color:#777;display:block}tr.ours{font-weight:600}img{max-width:100%}"""


def write(found: Backtest, pictures: Sequence[Path], path: Path, *, title: str) -> Path:
    """Write the page; pictures lie beside it."""
    shown = "".join(f'<p><img src="{escape(picture.name)}" alt="{escape(picture.stem)}"></p>' for picture in pictures)
    segments = [str(name) for name in found.table["segment"].drop_duplicates()]
    tables = "".join(_segment(found, name) for name in segments)
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    ahead = f"In brackets, {escape(found.model)} minus the other. All intervals are 95 %, over customers."
    path.write_text(f"{head}<h1>{escape(title)}</h1><p>{ahead}</p>{shown}{tables}<ul>{notes}</ul>\n", encoding="utf-8")
    return path


def _segment(found: Backtest, name: str) -> str:
    rows = found.table[found.table["segment"] == name]
    figures = [figure for figure in HEADINGS if (rows["figure"] == figure).any()]
    cells: dict[tuple[str, str], dict[str, Any]] = {
        (str(row["method"]), str(row["figure"])): {str(key): value for key, value in row.items()}
        for row in rows.to_dict("records")
    }
    head = "".join(f"<th>{escape(HEADINGS[figure])}</th>" for figure in figures)
    body = "".join(
        f"<tr{' class=ours' if method == found.model else ''}><td>{escape(method)}</td>"
        + "".join(f"<td>{_cell(cells.get((method, figure)))}</td>" for figure in figures)
        + "</tr>"
        for method in rows["method"].drop_duplicates()
    )
    said = "all" if name == EVERYONE else escape(name)
    return f"<h2>{said}</h2><table><tr><th></th>{head}</tr>{body}</table>"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    between = "" if pd.isna(row["low"]) else f"<small>{row['low']:.4f} to {row['high']:.4f}</small>"
    ahead = "" if pd.isna(row["ahead"]) else f"<small>[{row['ahead']:+.4f}]</small>"
    return f"{row['value']:.4f}{between}{ahead}"
