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
from models.base import Floats, TooLittle, feature_columns, matrix, read_json, require, write_json

#: Chosen on Complete Journey at a cut-off before those that are reported (2017-09-06).
GROWTH: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.06,
    "min_data_in_leaf": 200,
    "lambda_l2": 10.0,
    "feature_fraction_bynode": 0.5,
    "max_bin": 63,
}
#: So many needs are learned from, and so many trees grown on them. Twice as many
#: needs took twice the time and moved the log loss by 0.0001.
SAMPLE = 100_000
TREES = 120
#: Of few needs, a leaf may hold one in so many.
SMALLEST_SHARE = 200
#: A category's own rate leans on everybody's as if it had been seen so often.
LEANING = 50
#: The fewest outcomes of each kind that anything may be learned from.
FEWEST = 100
#: What was bought once is no need yet, and what was left alone for longer than this none any more.
LEAST_TIMES, LONGEST_DAYS = 2, 180


@dataclass(frozen=True)
class Restock:
    """Trees grown on top of each need's own rhythm (BG/NBD), one grove for all spans of days ahead.

    Each need in the lesson is asked about one of the spans, drawn by lot; the span is a feature, and a longer one
    never makes a purchase less likely.
    """

    columns: list[str]
    needs: btyd.BgNbd
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
        columns = feature_columns(frame)
        asked, outcome, start = _questions(frame, known, rows, chance, seed)
        design = np.column_stack([_design(frame.iloc[rows], columns, rates, base), asked])
        names = (*(f"f{i}" for i in range(len(columns))), "category_rate", "days_ahead")
        rising = {"monotone_constraints": [0] * (len(names) - 1) + [1]}
        fine = {"min_data_in_leaf": int(np.clip(len(rows) // SMALLEST_SHARE, 20, GROWTH["min_data_in_leaf"]))}
        how = trees.settings(GROWTH | fine | rising | growth, objective="binary", seed=seed)
        lesson = trees.Rows(design, outcome, start, names=names)
        customers = frame["customer_key"].to_numpy()[rows]
        grown = trees.grow(lesson, how, _trees(lesson, customers, how))
        needs = stocks.rhythm(stocks.latest(frame), seed=seed)
        return cls(columns, needs, grown, stocks.usual(label, np.empty((0, 3))), base, rates)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling."""
        past, design = stocks.history(frame), _design(frame, self.columns, self.rates, self.base)
        asked = np.empty(len(frame))
        chances = np.empty((len(frame), len(stocks.DAYS)))
        for place, days in enumerate(stocks.DAYS):
            asked[:] = days
            odds = btyd.log_odds(stocks.within(self.needs, past, float(days)))
            chances[:, place] = expit(odds + self.grown.added(np.column_stack([design, asked])))
        rising: Floats = np.maximum.accumulate(np.clip(chances, btyd.CERTAIN, 1 - btyd.CERTAIN), axis=1)
        return rising

    def typical(self) -> Floats:
        """The share of needs that came up within each span."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.grown.save(folder)
        content = {
            "columns": self.columns,
            "needs": asdict(self.needs),
            "mean": self.mean,
            "base": self.base,
            "rates": dict(self.rates),
        }
        write_json(folder / stocks.FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / stocks.FILE)
        needs, grown = btyd.BgNbd(**saved["needs"]), trees.Trees.load(folder)
        return cls(saved["columns"], needs, grown, saved["mean"], saved["base"], saved["rates"])


def _lesson(frame: pd.DataFrame, known: Floats, chance: np.random.Generator) -> NDArray[np.int64]:
    """The rows to learn from, in their order."""
    times, silent = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in (stocks.TIMES, stocks.SILENT))
    rows = np.flatnonzero((times >= LEAST_TIMES) & (silent <= LONGEST_DAYS) & np.isfinite(known[:, 0]))
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


def _questions(
    frame: pd.DataFrame, known: Floats, rows: NDArray[np.int64], chance: np.random.Generator, seed: int
) -> tuple[Floats, Floats, Floats]:
    """One span for each row, what became of it, and what the need's own rhythm said of it at the time."""
    spans = np.isfinite(known[rows]).sum(axis=1)  # the shorter spans are over before the longer ones
    which = np.minimum((chance.random(len(rows)) * spans).astype(np.int64), spans - 1)
    days = np.array(stocks.DAYS, dtype=np.float64)[which]
    told = frame[[stocks.TIMES, stocks.SILENT, stocks.FIRST]]
    moment = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
    start = np.zeros(len(rows))
    for when in np.unique(moment[rows]):
        here = moment[rows] == when
        then = stocks.rhythm(told[moment == when], seed=seed)
        past = stocks.history(told.iloc[rows[here]])
        start[here] = btyd.log_odds(stocks.within(then, past, days[here]))
    return days, known[rows, which], start


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
