"""Churn: who will not buy within the horizon, starting from how long a silence is usual for each customer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit

from models import asking, btyd, fates, leanings, seasoned, waits
from models import season as seasons
from models.base import FILE, Floats, feature_columns, matrix, read_json, write_json
from models.leanings import Leanings
from models.quarters import Quarters
from models.season import NO_CHANGE, NOTHING, Line, Past, Season
from models.seasoned import Rhythms
from models.waits import Whole

#: What the rhythm adds to the features that lean: three terms of its log odds, the chance to be there still, the rate.
ODDS, ALIVE, RATE = range(3), 3, 4


@dataclass(frozen=True)
class Churn:
    """Two answers amid which the truth lies, on the scale of log odds, at the level that the season asks for.

    Trees grown on the rhythm (BG/NBD) say who stays away in each quarter of the horizon; leanings weigh every figure
    in proportion. Both tell the customers of one moment apart; how many of all stay away is the rhythm's to say, put
    right by what last year came of it. Learned from active customers (a purchase within two horizons); anybody can
    be scored.
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    quarters: Quarters
    leanings: Leanings
    horizon_days: int
    base: float
    season: Season = NOTHING
    level: Line = NO_CHANGE

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: fates.Fate,
        *,
        seed: int = 0,
        horizon_days: int = 28,
        **growth: Any,
    ) -> Self:
        """Learn from every row of whose outcome something is known.

        label: 1 = no purchase in [as_of, as_of + horizon), 0 = at least one, NaN = not known yet; better, columns
        quiet (that), duration_days and observed, of as much as each row was watched. Every moment in the frame gets
        its own rhythm, fitted to its own rows: no row sees a later one's. `growth` overrides LightGBM's settings.
        """
        quiet = fates.fate(label)
        base = float(fates.known_quiet(frame, quiet, horizon_days)[1].mean())
        rhythms = seasoned.rhythms(frame)
        learned = cls(
            feature_columns(frame),
            rhythms[max(rhythms)],
            Quarters.fit(frame, *_watched(label, horizon_days), rhythms, seed=seed, **growth),
            _leaning(frame, quiet, horizon_days, rhythms, seed),
            horizon_days,
            base,
        )
        return learned._levelled(frame, seasoned.past(frame, quiet, horizon_days, rhythms))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon of each row's as_of), a row each."""
        chance = expit(self.level(self._log_odds(frame)))
        return np.clip(chance, btyd.CERTAIN, 1 - btyd.CERTAIN)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each feature moves each row from the usual, in log odds; + is towards no purchase.

        The rhythm's part counts as purchase_days (rare visits) and recency_days (the present silence).
        """
        parts, names = self.quarters.contributions(frame, self.rhythm)
        leaning = self._leaning(frame)
        names = [*names, *self.columns, btyd.RARE, btyd.SILENT]
        spoken = list(dict.fromkeys(names))
        told = np.array([[name == feature for feature in spoken] for name in names], dtype=np.float64)
        whole = np.hstack([parts, leaning]) @ told / 2 * self.level.slope
        return pd.DataFrame(whole, columns=spoken, index=frame.index)

    def typical(self) -> float:
        """The share of active customers who did not come back within the horizon."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.quarters.save(folder)
        content = {name: getattr(self, name) for name in ("columns", "horizon_days", "base")}
        parts = {"rhythm": asdict(self.rhythm), "season": self.season._asdict(), "level": list(self.level)}
        numbers = {"quarters": self.quarters.numbers(), "leanings": self.leanings.numbers()}
        write_json(folder / FILE, content | parts | numbers)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / FILE)
        saved["rhythm"], saved["season"] = btyd.BgNbd(**saved["rhythm"]), Season.of(saved["season"])
        saved["level"] = Line(*saved["level"])
        saved["quarters"] = Quarters.load(folder, saved["quarters"])
        saved["leanings"] = Leanings.of(saved["leanings"])
        return cls(**saved)

    def _log_odds(self, frame: pd.DataFrame) -> Floats:
        leaning = self.leanings.added(_leaned(frame, self.columns, self.rhythm, self.horizon_days))
        odds: Floats = (self.quarters.log_odds_quiet(frame, self.rhythm) + leaning) / 2
        return odds

    def _levelled(self, frame: pd.DataFrame, past: Past) -> Self:
        """The same with as many expected to stay away as the rhythm tells, put right by the season."""
        now = past.moment.max()
        told = seasons.season(past, now, self.horizon_days)
        here = btyd.latest(frame)
        here = here[fates.active(here, self.horizon_days)]
        expected = expit(told.line(past.odds[past.moment == now])).mean() if len(here) else self.base
        steep = seasons.steepness(told, past)
        level = Line(seasons.shift(steep * self._log_odds(here), float(expected)), steep)
        return replace(self, season=told, level=level)

    def _leaning(self, frame: pd.DataFrame) -> Floats:
        """What the leanings add: a column a feature, then the rhythm's rare visits and present silence."""
        design = _leaned(frame, self.columns, self.rhythm, self.horizon_days)
        past = btyd.history(frame)
        just_now = design.copy()
        just_now[:, ODDS] = _bent(self.rhythm.log_odds_quiet(past, self.horizon_days)[0])
        parts, fresh = self.leanings.contributions(design), self.leanings.contributions(just_now)
        rare = fresh[:, ODDS].sum(axis=1)
        silent = parts[:, ODDS].sum(axis=1) - rare
        return np.column_stack([parts[:, RATE + 1 :], rare + parts[:, RATE], silent + parts[:, ALIVE]])


def _watched(label: fates.Fate, horizon_days: int) -> tuple[pd.DataFrame, Whole]:
    """How long each row was watched, and the parts of the horizon to ask for: of a fate alone the whole is one part."""
    if isinstance(label, pd.DataFrame):
        return label, asking.ends(horizon_days)
    quiet = fates.fate(label)
    days = np.where(np.isfinite(quiet), float(horizon_days), 0.0)
    return pd.DataFrame({"duration_days": days, "observed": quiet == 0}), np.array([0, horizon_days])


def _leaning(frame: pd.DataFrame, quiet: Floats, horizon_days: int, rhythms: Rhythms, seed: int) -> Leanings:
    """Learned within each moment: a moment's own share of quiet customers is where its rows start."""
    chosen = asking.some(fates.active(frame, horizon_days) & np.isfinite(quiet), seed)
    rows, outcome = frame.iloc[chosen], quiet[chosen]
    moment, columns = waits.moments(rows), feature_columns(frame)
    design = np.zeros((len(rows), RATE + 1 + len(columns)))
    usual = np.zeros(len(rows))
    for when in np.unique(moment):
        here = moment == when
        design[here] = _leaned(rows[here], columns, rhythms[when], horizon_days)
        usual[here] = btyd.log_odds((outcome[here].sum() + outcome.mean()) / (here.sum() + 1))
    learned = Leanings.fit(design, outcome, usual)
    return learned.moved(float(usual.mean()))


def _leaned(frame: pd.DataFrame, columns: list[str], rhythm: btyd.BgNbd, horizon_days: int) -> Floats:
    past = btyd.history(frame)
    odds = btyd.log_odds(rhythm.p_no_purchase(*past, horizon_days))
    terms = np.column_stack([_bent(odds), rhythm.p_alive(*past), rhythm.rate(past.x, past.T)])
    return np.hstack([terms, leanings.logs(matrix(frame, columns))])


def _bent(odds: Floats) -> Floats:
    """Log odds, and two terms that bend them: customers taken for gone come back oftener than the rhythm says."""
    return np.column_stack([odds, np.maximum(odds, 0.0), odds**2 / 10])
