"""Restock: when a customer's coffee runs out, and everything else that they buy again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from models import btyd, stocks, trees
from models.base import FILE, Floats, TooLittle, feature_columns, matrix, read_json, require, write_json
from models.cupboard import NAMES, Cupboard

#: Chosen on Complete Journey at cut-offs before those that are reported (2017-09-06, 2017-10-04). A household's needs
#: come up together or not at all: small leaves learn households by heart.
GROWTH: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.06,
    "min_data_in_leaf": 1000,
    "lambda_l2": 100.0,
    "feature_fraction_bynode": 0.5,
    "max_bin": 63,
}
#: So many needs are learned from, and so many trees grown on them. With 100,000 and 120 the log loss of two earlier
#: cut-offs was 0.0005 and 0.0008 higher.
SAMPLE = 150_000
TREES = 180
#: Of few needs, a leaf may hold one in so many.
SMALLEST_SHARE = 150
#: A category's own rate leans on everybody's as if it had been seen so often.
LEANING = 50
#: The fewest outcomes of each kind that anything may be learned from.
FEWEST = 100


@dataclass(frozen=True)
class Restock:
    """Trees grown on top of each need's own rhythm (BG/NBD), one grove for all spans of days ahead.

    Each need in the lesson is asked about one of the spans, drawn by lot; the span is a feature, and a longer one
    never makes a purchase less likely. Of the customer they see what `cupboard` makes of their visits and needs.
    """

    columns: list[str]
    needs: btyd.BgNbd
    cupboard: Cupboard
    grown: trees.Trees
    mean: list[float]
    base: float
    rates: Mapping[str, float] = field(repr=False)

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, **growth: Any) -> Self:
        """Learn from needs whose outcome is known, a sample of them where there are many.

        frame: a row for a customer, moment and `category`, with the numbers of the need and of the customer.
        label: within_7, within_14 and within_28; NaN = not known yet. Every moment has its own rhythm, fitted to
        its own rows. `growth` overrides LightGBM's settings.
        """
        require(frame, ["category", stocks.TIMES, stocks.SILENT, stocks.FIRST])
        known = stocks.outcomes(label)
        chance = np.random.default_rng([seed, len(frame)])
        rows = _lesson(frame, known, chance)
        rates, base = _rates(frame, known, rows)
        columns = [name for name in feature_columns(frame) if name.startswith("need_")]
        days, outcome = _questions(known, rows, chance)
        start, laid = _then(frame, rows, days, seed)
        design = np.column_stack([_design(frame.iloc[rows], columns, rates, base), laid, days])
        names = (*(f"f{i}" for i in range(len(columns))), "category_rate", *NAMES, "days_ahead")
        rising = {"monotone_constraints": [0] * (len(names) - 1) + [1]}
        fine = {"min_data_in_leaf": int(np.clip(len(rows) // SMALLEST_SHARE, 20, GROWTH["min_data_in_leaf"]))}
        how = trees.settings(GROWTH | fine | rising | growth, objective="binary", seed=seed)
        lesson = trees.Rows(design, outcome, start, names=names)
        customers = frame["customer_key"].to_numpy()[rows]
        grown = trees.grow(lesson, how, _trees(lesson, customers, how))
        now = btyd.latest(frame)
        usual = stocks.usual(label, np.empty((0, 3)))
        return cls(columns, stocks.rhythm(now, seed=seed), Cupboard.of(now), grown, usual, base, rates)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling; a customer's needs together."""
        past, laid = stocks.history(frame), self._laid(frame)
        chances = np.empty((len(frame), len(stocks.DAYS)))
        for place, days in enumerate(stocks.DAYS):
            odds = btyd.log_odds(stocks.within(self.needs, past, float(days)))
            chances[:, place] = expit(odds + self.grown.added(self._asked(frame, laid, days)))
        rising: Floats = np.maximum.accumulate(np.clip(chances, btyd.CERTAIN, 1 - btyd.CERTAIN), axis=1)
        return rising

    def contributions(self, frame: pd.DataFrame, days: int = 14) -> pd.DataFrame:
        """How much each feature moves each row from the usual, in log odds; + is towards needing it within the days.

        The trees' part is TreeSHAP's (Lundberg 2020). The rhythm's part counts as need_times (how rare it is) and
        need_recency_days (the present silence).
        """
        rare, silent = self.needs.log_odds_quiet(stocks.history(frame), days)
        grown = self.grown.contributions(self._asked(frame, self._laid(frame), days))[:, :-1]
        names = [*self.columns, "category_rate", *NAMES, "days_ahead"]
        told = pd.DataFrame(grown, columns=names, index=frame.index).drop(columns="days_ahead")
        for name, part in ((stocks.TIMES, -btyd.log_odds(1 - self.base) - rare), (stocks.SILENT, -silent)):
            told[name] += part
        return told

    def typical(self) -> Floats:
        """The share of needs that came up within each span."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.grown.save(folder)
        content = {
            "columns": self.columns,
            "needs": asdict(self.needs),
            "cupboard": self.cupboard.numbers(),
            "mean": self.mean,
            "base": self.base,
            "rates": dict(self.rates),
        }
        write_json(folder / FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / FILE)
        needs, cupboard = btyd.BgNbd(**saved["needs"]), Cupboard.from_numbers(saved["cupboard"])
        grown = trees.Trees.load(folder)
        return cls(saved["columns"], needs, cupboard, grown, saved["mean"], saved["base"], saved["rates"])

    def _laid(self, frame: pd.DataFrame) -> NDArray[Any]:
        return np.column_stack([_design(frame, self.columns, self.rates, self.base), self.cupboard.lay(frame)])

    def _asked(self, frame: pd.DataFrame, laid: NDArray[Any], days: int) -> NDArray[Any]:
        asked = np.full(len(frame), float(days))
        beside = laid[:, len(self.columns) + 1 :]
        return np.column_stack([laid, self.cupboard.ahead(frame, beside, asked), asked])


def _lesson(frame: pd.DataFrame, known: Floats, chance: np.random.Generator) -> NDArray[np.int64]:
    """The rows to learn from, in their order."""
    rows = np.flatnonzero(stocks.is_need(frame) & np.isfinite(known[:, 0]))
    came = known[rows, 0].sum()
    if min(came, len(rows) - came) < FEWEST:
        raise TooLittle(
            f"{int(came)} of {len(rows)} needs came up within {stocks.DAYS[0]} days; {FEWEST} of each kind are needed: "
            "load a longer history, or products with categories"
        )
    return np.sort(chance.choice(rows, SAMPLE, replace=False)) if len(rows) > SAMPLE else rows


def _rates(frame: pd.DataFrame, known: Floats, rows: NDArray[np.int64]) -> tuple[dict[str, float], float]:
    """How often the needs of each category came up within the shortest span, and those of all."""
    came = pd.Series(known[rows, 0]).groupby(frame["category"].to_numpy()[rows])
    base = float(known[rows, 0].mean())
    rates = (came.sum() + LEANING * base) / (came.count() + LEANING)
    return {str(category): float(rate) for category, rate in rates.items()}, base


def _questions(known: Floats, rows: NDArray[np.int64], chance: np.random.Generator) -> tuple[Floats, Floats]:
    """One span for each row, and what became of it."""
    spans = np.isfinite(known[rows]).sum(axis=1)  # the shorter spans are over before the longer ones
    which = np.minimum((chance.random(len(rows)) * spans).astype(np.int64), spans - 1)
    return np.array(stocks.DAYS, dtype=np.float64)[which], known[rows, which]


def _then(frame: pd.DataFrame, rows: NDArray[np.int64], days: Floats, seed: int) -> tuple[Floats, NDArray[Any]]:
    """What the need's own rhythm and the cupboard said of each row at its moment, from all rows of that moment."""
    moment = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
    start, laid = np.zeros(len(rows)), np.zeros((len(rows), len(NAMES)), dtype=np.float32)
    for when in np.unique(moment[rows]):
        everybody = np.flatnonzero(moment == when)
        then, here = frame.take(everybody), moment[rows] == when
        needs = everybody[stocks.is_need(then)]
        place = np.searchsorted(needs, rows[here])
        taught, cupboard = frame.take(rows[here]), Cupboard.of(then)
        rhythm = stocks.rhythm(then, seed=seed)
        start[here] = btyd.log_odds(stocks.within(rhythm, stocks.history(taught), days[here]))
        beside = cupboard.lay(frame.take(needs))[place]
        laid[here] = np.column_stack([beside, cupboard.ahead(taught, beside, days[here])])
    return start, laid


def _design(frame: pd.DataFrame, columns: list[str], rates: Mapping[str, float], base: float) -> Floats:
    require(frame, ["category"])
    rate = frame["category"].map(rates).astype(np.float64).fillna(base)
    return np.column_stack([matrix(frame, columns), rate])


def _trees(lesson: trees.Rows, customers: NDArray[Any], how: dict[str, Any]) -> int:
    """How many trees to grow: as many as serve customers whose needs they have not seen, where there are few rows.

    On the needs of 20 customers of Complete Journey 120 trees had a log loss of .561, their rhythm alone .536.
    """
    if len(lesson.outcome) >= SAMPLE // 2:
        return TREES
    judges = np.unique(customers, return_inverse=True)[1] % 4 == 0
    if judges.all() or len(set(lesson.outcome[judges])) < 2:
        return TREES // 6
    return trees.grow_until(lesson.where(~judges), lesson.where(judges), how, most=4 * TREES, patience=20).count
