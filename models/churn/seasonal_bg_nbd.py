"""Seasoned: what the rhythm of purchases says of churn, put right by what last year came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import expit

from models import baselines, btyd, fates, season, waits
from models.base import FILE, Floats, read_json, write_json
from models.season import Past, Season

#: The rhythm of each moment, fitted to its own rows.
Rhythms = dict[np.datetime64, btyd.BgNbd]


@dataclass(frozen=True)
class SeasonedBgNbd:
    """BG/NBD's P(no purchase within the horizon) on the season's line: the textbook where it is served.

    Needs outcomes only for the line; without them it is BG/NBD.
    """

    rhythm: btyd.BgNbd
    horizon_days: int
    base: float
    season: Season

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: fates.Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Fit the rhythm of the latest moment's customers, and the line to what came of earlier ones'."""
        fitted = rhythms(frame)
        told = past(frame, fates.fate(label), horizon_days, fitted)
        plain = baselines.BgNbdChurn.fit(frame, label, horizon_days=horizon_days)
        now = max(fitted)
        return cls(fitted[now], horizon_days, plain.base, season.season(told, now, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        odds = btyd.log_odds(self.rhythm.p_no_purchase(*btyd.history(frame), self.horizon_days))
        return np.clip(expit(self.season.line(odds)), btyd.CERTAIN, 1 - btyd.CERTAIN)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rare visits and the present silence, in log odds against the usual; + is towards no purchase."""
        rare, silent = self.rhythm.log_odds_quiet(btyd.history(frame), self.horizon_days)
        parts = {btyd.RARE: rare - btyd.log_odds(self.base), btyd.SILENT: silent}
        return pd.DataFrame(parts, index=frame.index) * self.season.line.slope

    def typical(self) -> float:
        """The share of all outcomes that were quiet."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the parameters and the line."""
        own = {"rhythm": asdict(self.rhythm), "horizon_days": self.horizon_days, "base": self.base}
        write_json(folder / FILE, own | {"season": self.season._asdict()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters and the line back."""
        saved = read_json(folder / FILE)
        rhythm, told = btyd.BgNbd(**saved["rhythm"]), Season.of(saved["season"])
        return cls(rhythm, saved["horizon_days"], saved["base"], told)


def rhythms(frame: pd.DataFrame) -> Rhythms:
    """The rhythm of each moment in the frame."""
    moment, histories = waits.moments(frame), btyd.history(frame)
    return {when: btyd.BgNbd.fit(*(part[moment == when] for part in histories)) for when in np.unique(moment)}


def past(frame: pd.DataFrame, quiet: Floats, horizon_days: int, fitted: Rhythms) -> Past:
    """What the rhythm said of active customers at each moment, and what came of it."""
    moment, histories = waits.moments(frame), btyd.history(frame)
    odds, seen = np.zeros(len(frame)), np.zeros(len(frame))
    for when, rhythm in fitted.items():
        here = moment == when
        then = btyd.History(*(part[here] for part in histories))
        odds[here] = btyd.log_odds(rhythm.p_no_purchase(*then, horizon_days))
        seen[here] = then.T.max() + 1
    return Past(moment, odds, quiet, seen).where(fates.active(frame, horizon_days))
