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

RFM_COLUMNS = ("recency_days", "purchase_days", "spend_total")
_QUINTILE_SHARES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True, slots=True)
class RfmQuintiles:
    """Where one fifth of the customers ends and the next begins, for each of the three figures."""

    as_of: str
    recency_days: tuple[float, ...]
    purchase_days: tuple[float, ...]
    spend_total: tuple[float, ...]


def compute_quintiles(frame: pd.DataFrame, as_of: datetime) -> RfmQuintiles:
    """The lines between fifths of these customers; a figure nobody has puts everyone on one side."""
    return RfmQuintiles(as_of.astimezone(UTC).isoformat(), *(_quintile_edges(frame, name) for name in RFM_COLUMNS))


def rfm_codes(frame: pd.DataFrame, quintiles: RfmQuintiles) -> list[str | None]:
    """Three digits a customer, 5 the best: "511" came lately, seldom, for little. None where figures lack."""
    recency, days, spend = (_column(frame, name) for name in RFM_COLUMNS)
    is_complete = np.isfinite(recency) & np.isfinite(days) & np.isfinite(spend)
    r = 5 - np.searchsorted(quintiles.recency_days, recency)
    f = 1 + np.searchsorted(quintiles.purchase_days, days)
    m = 1 + np.searchsorted(quintiles.spend_total, spend)
    codes = (100 * r + 10 * f + m).tolist()
    return [str(code) if has_code else None for code, has_code in zip(codes, is_complete.tolist(), strict=True)]


def save_quintiles(home: Path, quintiles: RfmQuintiles) -> None:
    """Leave the lines for the door, unless it has newer ones: a replay must not move them."""
    newest = load_quintiles(home)
    if newest and newest.as_of > quintiles.as_of:
        return
    partial = home / f".rfm.json.{os.getpid()}"
    partial.write_text(json.dumps(asdict(quintiles)), encoding="utf-8")
    partial.replace(home / "rfm.json")


def load_quintiles(home: Path) -> RfmQuintiles | None:
    """The lines of the last night; None before the first."""
    path = home / "rfm.json"
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    return RfmQuintiles(stored["as_of"], *(tuple(stored[name]) for name in RFM_COLUMNS))


def _quintile_edges(frame: pd.DataFrame, name: str) -> tuple[float, ...]:
    values = _column(frame, name)
    values = values[np.isfinite(values)]
    return tuple(np.quantile(values, _QUINTILE_SHARES).tolist()) if len(values) else (0.0,) * len(_QUINTILE_SHARES)


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(np.float64) if name in frame else np.full(len(frame), np.nan)
