"""RFM: three digits, 1 to 5, that retailers read at a glance: how lately, how often, for how much.

The digits say where a customer stands among the others, so the night that sees everybody draws the lines,
and the door reads them: one customer alone could not be placed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

FIGURES = ("recency_days", "purchase_days", "spend_total")
_FIFTHS = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True, slots=True)
class Lines:
    """Where one fifth of the customers ends and the next begins, for each of the three figures."""

    as_of: str
    recency_days: tuple[float, ...]
    purchase_days: tuple[float, ...]
    spend_total: tuple[float, ...]


def draw(frame: pd.DataFrame, as_of: datetime) -> Lines:
    """The lines between fifths of these customers; a figure nobody has puts everyone on one side."""
    return Lines(as_of.astimezone(UTC).isoformat(), *(_fifths(frame, name) for name in FIGURES))


def digits(frame: pd.DataFrame, lines: Lines) -> list[str | None]:
    """Three digits a customer, 5 the best: "511" came lately, seldom, for little. None where figures lack."""
    recency, days, spend = (_column(frame, name) for name in FIGURES)
    known = np.isfinite(recency) & np.isfinite(days) & np.isfinite(spend)
    r = 5 - np.searchsorted(lines.recency_days, recency)
    f = 1 + np.searchsorted(lines.purchase_days, days)
    m = 1 + np.searchsorted(lines.spend_total, spend)
    codes = (100 * r + 10 * f + m).tolist()
    return [str(code) if sure else None for code, sure in zip(codes, known.tolist(), strict=True)]


def keep(home: Path, lines: Lines) -> None:
    """Leave the lines for the door, unless it has newer ones: a replay must not move them."""
    newest = kept(home)
    if newest and newest.as_of > lines.as_of:
        return
    partial = home / f".rfm.json.{os.getpid()}"
    partial.write_text(json.dumps(asdict(lines)), encoding="utf-8")
    partial.replace(home / "rfm.json")


def kept(home: Path) -> Lines | None:
    """The lines of the last night; None before the first."""
    path = home / "rfm.json"
    if not path.exists():
        return None
    drawn = json.loads(path.read_text(encoding="utf-8"))
    return Lines(drawn["as_of"], *(tuple(drawn[name]) for name in FIGURES))


def _fifths(frame: pd.DataFrame, name: str) -> tuple[float, ...]:
    values = _column(frame, name)
    values = values[np.isfinite(values)]
    return tuple(np.quantile(values, _FIFTHS).tolist()) if len(values) else (0.0,) * len(_FIFTHS)


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(np.float64) if name in frame else np.full(len(frame), np.nan)
