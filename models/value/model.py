"""Value: what a customer will spend over the horizon, from their rhythm, their spending and their taste."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import btyd, spending, trees
from models.base import FILE, Floats, feature_columns, matrix, read_json, write_json
from models.straight import Straight

#: Chosen on Complete Journey at cut-offs before those that are reported (horizons of 30 to 60 days, July to September).
GROWTH: dict[str, Any] = {
    "tweedie_variance_power": 1.4,
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 150,
    "lambda_l2": 5.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
#: From 75 to 150 the figures hardly move, on both shops and at all earlier cut-offs.
TREES = 100
#: So many rows are learned from at most: twice as many moved the normalised Gini by 0.001.
SAMPLE = 60_000
#: Part of a horizon teaches too, from this share of it on: what was spent last month is this season's spending.
LEAST_SHARE = 0.3
#: One wholesaler's order must not teach what everybody else will spend.
WINSOR = 0.999
#: What the rhythm adds to the features, and which of the shop's own features each of them speaks of.
RHYTHM = {
    "rhythm_value": "spend_total",
    "rhythm_purchases": "purchase_days",
    "rhythm_alive": "recency_days",
    "rhythm_rate": "purchase_days",
    "rhythm_worth": "spend_day_mean",
}
#: And what a row is asked: how many days ahead.
ASKED = "days_ahead"
LEAST = 1e-3
#: The answer is brought to the level of what is expected of all customers, within these bounds.
BOUNDS = (1 / 4, 4.0)
FREE, ANCHORED = "free.txt", "anchored.txt"


@dataclass(frozen=True)
class Value:
    """Three ways to foretell an amount of which many spend nothing and the rest very differently (Tweedie's loss).

    The rhythm (BG/NBD) and what a visit is worth (Gamma-Gamma) are features, fitted to each moment's own rows.
    One grove is grown from nothing, one on top of what rhythm and worth expect, and one rule is straight; the answer
    lies amid them on a scale of logarithms. The first and the last rank better, the second is nearer in level: so
    the total is the second's or, where a year ago tells of the season, what rhythm and worth expect in all times
    what came of that then.
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    worth: spending.GammaGamma
    free: trees.Trees
    anchored: trees.Trees
    straight: Straight
    horizon_days: int
    mean: float
    usual: float
    season: float = 1.0
    level: float = 0.0

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, label: spending.Outcome, *, seed: int = 0, horizon_days: int = 90, **growth: Any
    ) -> Self:
        """Learn from every row of whose horizon enough is over; a row's days ahead are a feature.

        label: what was spent in [as_of, as_of + horizon), NaN = not known yet; or columns spent and days, of as much
        of the horizon as is over. `growth` overrides LightGBM's settings.
        """
        known = spending.known_spends(frame, label, horizon_days)[1]
        rows = _lesson(frame, *spending.outcomes(label, horizon_days), horizon_days, seed)
        how = trees.settings(GROWTH | growth, objective="tweedie", seed=seed)
        usual = float(np.log(rows.outcome.sum() / np.exp(rows.free).sum()))
        learned = cls(
            feature_columns(frame),
            *spending.fitted(btyd.latest(frame)),
            trees.grow(rows.beginning(rows.free + usual), how, TREES),
            trees.grow(rows.beginning(rows.anchor), how, TREES),
            Straight.fit(rows.design, rows.outcome, rows.free),
            horizon_days,
            float(known.mean()),
            usual + float(np.log(horizon_days)),
        )
        return learned._levelled(frame, spending.whole(label, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon, from as_of on."""
        return np.exp(np.clip(np.mean(self._ways(frame), axis=0) + self.level, -20.0, 40.0))

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each feature moves each row's logarithm from the usual; + is towards spending more.

        The groves' part is TreeSHAP's (Lundberg 2020). What the rhythm expects counts as the figures it comes from.
        """
        design, anchor = self._design(frame)
        parts = sum(grown.contributions(design)[:, :-1] for grown in (self.free, self.anchored))
        parts = (parts + self.straight.contributions(design)) / 3
        names = [*self.columns, *RHYTHM.values(), ASKED]
        parts[:, names.index("spend_total", len(self.columns))] += (anchor - self.usual) / 3
        spoken = [name for name in dict.fromkeys(names) if name != ASKED]
        told = np.array([[name == feature for feature in spoken] for name in names], dtype=np.float64)
        return pd.DataFrame(parts @ told, columns=spoken, index=frame.index)

    def typical(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.free.save(folder, FREE)
        self.anchored.save(folder, ANCHORED)
        own = ("columns", "horizon_days", "mean", "usual", "season", "level")
        content = {name: getattr(self, name) for name in own}
        parts = {"rhythm": asdict(self.rhythm), "worth": asdict(self.worth), "straight": self.straight.numbers()}
        write_json(folder / FILE, content | parts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / FILE)
        saved["rhythm"], saved["worth"] = btyd.BgNbd(**saved["rhythm"]), spending.GammaGamma(**saved["worth"])
        saved["straight"] = Straight.of(saved["straight"])
        return cls(free=trees.Trees.load(folder, FREE), anchored=trees.Trees.load(folder, ANCHORED), **saved)

    def _ways(self, frame: pd.DataFrame) -> list[Floats]:
        """The three answers, as logarithms; the anchored one second."""
        design, anchor = self._design(frame)
        days = np.log(self.horizon_days)
        return [
            self.free.added(design) + self.usual,
            self.anchored.added(design) + anchor,
            self.straight.added(design) + days,
        ]

    def _design(self, frame: pd.DataFrame) -> tuple[Floats, Floats]:
        terms = _terms(self.rhythm, self.worth, frame, self.horizon_days)
        asked = np.full((len(frame), 1), float(self.horizon_days))
        return np.hstack([matrix(frame, self.columns), terms, asked]), _anchor(terms)

    def _levelled(self, frame: pd.DataFrame, spent: Floats) -> Self:
        """The same with its total put right: see the class."""
        season = spending.season(frame, spent, self.horizon_days)
        now = btyd.latest(frame)
        ways = self._ways(now)
        total = np.exp(ways[1]).sum()
        if season != 1.0:
            total = season * spending.expected(self.rhythm, self.worth, now, self.horizon_days).sum()
        change = total / max(np.exp(np.mean(ways, axis=0)).sum(), LEAST)
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return type(self)(**own | {"season": season, "level": float(np.log(np.clip(change, *BOUNDS)))})


@dataclass(frozen=True)
class _Rows:
    """What is learned from: features, amounts, and the logarithms from which the ways start, by days and by rhythm."""

    design: Floats
    outcome: Floats
    free: Floats
    anchor: Floats
    names: tuple[str, ...]

    def beginning(self, start: Floats) -> trees.Rows:
        return trees.Rows(self.design, self.outcome, start, names=self.names)


def _lesson(frame: pd.DataFrame, spent: Floats, days: Floats, horizon_days: int, seed: int) -> _Rows:
    columns = feature_columns(frame)
    names = (*(f"f{place}" for place in range(len(columns))), *RHYTHM, ASKED)
    rows = _taught(spent, days, horizon_days, seed)
    days, spent = days[rows], np.maximum(spent[rows], 0.0)
    terms = _terms_then(frame, rows, days)
    capped = np.minimum(spent, np.quantile(spent[spent > 0], WINSOR))
    design = np.hstack([matrix(frame, columns)[rows], terms, days[:, None]])
    return _Rows(design, capped, np.log(days), _anchor(terms), names)


def _taught(spent: Floats, days: Floats, horizon_days: int, seed: int) -> NDArray[np.intp]:
    """The rows to learn from, in their order."""
    rows = np.flatnonzero(np.isfinite(spent) & (days >= max(1.0, LEAST_SHARE * horizon_days)))
    if len(rows) <= SAMPLE:
        return rows
    return np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, SAMPLE, replace=False))


def _terms_then(frame: pd.DataFrame, rows: NDArray[np.intp], days: Floats) -> Floats:
    """What the rhythm said of each row over its own days, fitted to the rows of its moment."""
    moment = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
    terms = np.zeros((len(rows), len(RHYTHM)))
    for when in np.unique(moment[rows]):
        here = moment[rows] == when
        fitted = spending.fitted(frame[moment == when])
        terms[here] = _terms(*fitted, frame.iloc[rows[here]], days[here])
    return terms


def _terms(rhythm: btyd.BgNbd, worth: spending.GammaGamma, frame: pd.DataFrame, days: float | Floats) -> Floats:
    past = btyd.history(frame)
    purchases = np.maximum(rhythm.expected_purchases(*past, days), 0.0)
    each = worth.expected(*spending.spends(frame))
    return np.column_stack([purchases * each, purchases, rhythm.p_alive(*past), rhythm.rate(past.x, past.T), each])


def _anchor(terms: Floats) -> Floats:
    """The logarithm of what rhythm and worth expect: where the trees have learned nothing, that is the answer."""
    logs: Floats = np.log(np.maximum(terms[:, 0], LEAST))
    return logs
