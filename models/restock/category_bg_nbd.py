"""Stocks: the plain rules of when a customer runs out of something, from how often they have bought it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import btyd
from models.base import FILE, Floats, read_json, require, write_json

#: A frame of needs has one row for a customer, a moment and a category, with these numbers among others.
TIMES, SILENT, FIRST = "need_times", "need_recency_days", "need_first_days"
#: How far ahead a need is foretold: a column of the answer each, never falling.
DAYS = (7, 14, 28)
#: A need is what was bought on so many days, the last of them not longer ago than a season.
NEED_TIMES, NEED_DAYS = 3, 120
#: So many rows say all there is to say about four parameters.
ENOUGH = 20_000


def history(frame: pd.DataFrame) -> btyd.History:
    """Each need's past in three numbers: times bought after the first, days from first to last, days from first to now.

    A first purchase one day ago was yesterday, the last day that was seen.
    """
    require(frame, [TIMES, SILENT, FIRST])
    times, silent, first = (
        np.maximum(np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan), posinf=0.0), 0.0)
        for name in (TIMES, SILENT, FIRST)
    )
    span = np.maximum(first - silent, 0.0)
    return btyd.History(np.maximum(times - 1, 0.0), span, np.maximum(first - 1, span))


def is_need(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are needs at all: what was bought once or long ago does not run out."""
    require(frame, [TIMES, SILENT])
    times, silent = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in (TIMES, SILENT))
    return (times >= NEED_TIMES) & (silent <= NEED_DAYS)


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """The needs of the frame's last moment, with what their history is read from."""
    require(frame, ["as_of", TIMES, SILENT, FIRST])
    return btyd.latest(frame[["as_of", TIMES, SILENT, FIRST]])


def rhythm(frame: pd.DataFrame, *, seed: int = 0) -> btyd.BgNbd:
    """BG/NBD over the needs of a frame of one moment; a sample, where there are many."""
    past = history(frame)
    if len(past.x) > ENOUGH:
        some = np.random.default_rng(seed).choice(len(past.x), ENOUGH, replace=False)
        past = btyd.History(*(part[some] for part in past))
    return btyd.BgNbd.fit(*past)


def within(needs: btyd.BgNbd, past: btyd.History, days: float | Floats) -> Floats:
    """P(bought again within these days | past), kept off certainty."""
    return np.clip(1 - needs.p_no_purchase(*past, days), btyd.CERTAIN, 1 - btyd.CERTAIN)


def outcomes(label: pd.DataFrame) -> Floats:
    """The label's columns within_7, within_14 and within_28 as an array (rows, 3): 1, 0, or NaN for not known yet."""
    require(label, [f"within_{days}" for days in DAYS])
    return label[[f"within_{days}" for days in DAYS]].to_numpy(np.float64, na_value=np.nan)


def usual(label: pd.DataFrame, expected: Floats) -> list[float]:
    """The share of needs that came up within each span; what was expected, where nobody knows yet."""
    known = outcomes(label)
    counts = np.isfinite(known).sum(axis=0)
    shares = np.nansum(known, axis=0) / np.maximum(counts, 1)
    means = expected.mean(axis=0) if len(expected) else np.zeros(len(DAYS))
    rising: Floats = np.maximum.accumulate(np.where(counts > 0, shares, means))
    return [float(share) for share in rising]


@dataclass(frozen=True)
class OwnRate:
    """Each need comes up at its own steady rate; a new one at everybody's. Needs no outcomes."""

    rate: float
    mean: list[float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0) -> Self:
        """One number to learn: how often the needs of the latest moment come up, all together."""
        now = latest(frame)
        past = history(now)
        rate = float((past.x.sum() + 1) / (past.T.sum() + 30))
        return cls(rate, usual(label, cls(rate, []).score(now)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling."""
        past = history(frame)
        own = (past.x + 1) / (past.T + 1 / self.rate)
        chances: Floats = -np.expm1(-own[:, None] * np.array(DAYS, dtype=np.float64))
        return chances

    def typical(self) -> Floats:
        """What holds for needs in general."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the numbers."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        return cls(**read_json(folder / FILE))


@dataclass(frozen=True)
class PairRhythm:
    """Buy till you die, for each customer and category: a steady rate until the day they are done with it."""

    needs: btyd.BgNbd
    mean: list[float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0) -> Self:
        """Fit the needs of the latest moment; outcomes, if there are any, give what is typical."""
        now = latest(frame)
        needs = rhythm(now, seed=seed)
        return cls(needs, usual(label, spread(needs, history(now))))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling."""
        return spread(self.needs, history(frame))

    def typical(self) -> Floats:
        """What holds for needs in general."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the parameters."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        saved: dict[str, Any] = read_json(folder / FILE)
        return cls(btyd.BgNbd(**saved["needs"]), saved["mean"])


def spread(needs: btyd.BgNbd, past: btyd.History, days: Sequence[int] = DAYS) -> Floats:
    """P(bought again within each of these spans): array (rows, spans)."""
    return np.column_stack([within(needs, past, float(span)) for span in days])
