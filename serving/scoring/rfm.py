"""RFM codes: three digits, 1 to 5, for recency, frequency and monetary value.

The digits are quintiles among all customers, so the nightly run computes the quintile edges and saves them for online
scoring, where one customer alone could not be ranked.
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
    """The four edges between fifths of the customers, for each of the three features."""

    as_of: str
    recency_days: tuple[float, ...]
    purchase_days: tuple[float, ...]
    spend_total: tuple[float, ...]


def compute_quintiles(frame: pd.DataFrame, as_of: datetime) -> RfmQuintiles:
    """Quintile edges of the customers of a frame with columns RFM_COLUMNS; all 0 for a feature without values."""
    return RfmQuintiles(as_of.astimezone(UTC).isoformat(), *(_quintile_edges(frame, name) for name in RFM_COLUMNS))


def rfm_codes(frame: pd.DataFrame, quintiles: RfmQuintiles) -> list[str | None]:
    """RFM code per row of the frame, 5 the best: "511" is recent, seldom, low spend. None without features.

    frame: columns RFM_COLUMNS.
    """
    recency, days, spend = (_column(frame, name) for name in RFM_COLUMNS)
    is_complete = np.isfinite(recency) & np.isfinite(days) & np.isfinite(spend)
    r = 5 - np.searchsorted(quintiles.recency_days, recency)
    f = 1 + np.searchsorted(quintiles.purchase_days, days)
    m = 1 + np.searchsorted(quintiles.spend_total, spend)
    codes = (100 * r + 10 * f + m).tolist()
    return [str(code) if has_code else None for code, has_code in zip(codes, is_complete.tolist(), strict=True)]


def save_quintiles(home: Path, quintiles: RfmQuintiles) -> None:
    """Save the edges for online scoring, unless newer ones are saved: a historical run must not replace them."""
    newest = load_quintiles(home)
    if newest and newest.as_of > quintiles.as_of:
        return
    partial = home / f".rfm.json.{os.getpid()}"
    partial.write_text(json.dumps(asdict(quintiles)), encoding="utf-8")
    partial.replace(home / "rfm.json")


def load_quintiles(home: Path) -> RfmQuintiles | None:
    """The edges of the last nightly run; None before the first."""
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
