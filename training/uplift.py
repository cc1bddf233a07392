"""Uplift on trial: does contact bring customers back, whom, and is what the shop's campaigns say to be believed?

Everything is judged on customers whom the models had not seen, with intervals by customers. The verdict is
`evidence` only where contact is known to help those it is foretold to help most, more than the others, and where
it seems to have changed nothing before it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.trial import Trial
from models.unseen import Tried
from training import intervals
from training.intervals import Draws, Floats

EVIDENCE, TOO_LITTLE = "evidence", "not enough evidence"
#: Who ranks customers; the others stand beside it.
LEARNER = "x"
#: The share of customers who are called the most persuadable.
FIRST = 1 / 3
#: Where contact is foretold this well, also among customers who can be compared, there is little to compare.
MOST_TELLING = 0.9
#: Outcomes above this quantile count as much as it: a few huge baskets would decide the mean.
WINSOR = 0.995
#: Points of the Qini curve.
POINTS = np.linspace(0.0, 1.0, 51)
DRAWS = 500


@dataclass(frozen=True)
class Judged:
    """What was found of one outcome: figures with their intervals, and the Qini curve of every learner.

    `figures` maps a name to (value, low, high); gains and effects are in the outcome's own unit a customer.
    """

    figures: dict[str, tuple[float, float, float]]
    curves: pd.DataFrame
    contacted: int
    others: int
    mailings: int


@dataclass(frozen=True)
class Verdict:
    """`evidence` or `not enough evidence`, and why in words."""

    verdict: str
    why: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return self.verdict == EVIDENCE


def winsorised(outcome: Floats) -> Floats:
    """Amounts of which the largest count as the quantile WINSOR of what was spent at all."""
    spent = outcome[outcome > 0]
    return np.minimum(outcome, np.quantile(spent, WINSOR)) if len(spent) else outcome


def judged(trial: Trial, tried: Tried, *, draws: int = DRAWS, seed: int = 0) -> Judged:
    """Every figure of one outcome over the rows that can be compared."""
    kept = tried.kept
    drawn = Draws.of(trial.customers[kept], draws=draws, seed=seed)
    weights = _weights(drawn, trial.customers[kept])
    gain, reached = tried.gain[kept], trial.contacted
    figures: dict[str, tuple[float, float, float]] = {"average": _mean(gain, weights)}
    figures["plain_difference"] = _difference(trial.outcome[kept], reached[kept], weights)
    telling = {"telling": np.ones(len(kept), dtype=bool), "telling_kept": kept}
    alone = {name: within_auc(trial, tried.chance, rows) for name, rows in telling.items()}
    alone["outside"] = float(1 - kept.mean())
    figures |= {name: (value, np.nan, np.nan) for name, value in alone.items()}
    parts = []
    for learner, effect in tried.effects.items():
        order = _order(effect[kept], trial.mailing[kept])
        found, curve = _qini(gain[order], weights[:, order])
        figures |= {f"{learner}.{name}": value for name, value in found.items()}
        parts.append(curve.assign(learner=learner))
    curves = pd.concat(parts, ignore_index=True)
    mailings = len(np.unique(trial.mailing[kept]))
    return Judged(figures, curves, int((kept & reached).sum()), int((kept & ~reached).sum()), mailings)


def verdict(found: Judged, placebo: Judged | None, *, learner: str = LEARNER) -> Verdict:
    """What these figures allow to be said; `placebo` is the same question asked of the days before contact."""
    doubts = [*_unlike(found), *_unmoved(found, learner), *_placebo(found, placebo, learner)]
    if doubts:
        return Verdict(TOO_LITTLE, doubts)
    return Verdict(EVIDENCE, [_said(found, learner)])


def within_auc(trial: Trial, chance: Floats, rows: NDArray[np.bool_]) -> float:
    """How well contact could be foretold within a mailing: 0.5 is a lottery, 1 a rule; mean weighted by pairs."""
    areas, pairs = [], []
    for mailing in np.unique(trial.mailing[rows]):
        here = (trial.mailing == mailing) & rows
        reached = trial.contacted[here]
        yes, no = int(reached.sum()), int((~reached).sum())
        if yes and no:
            ranks = rankdata(chance[here])[reached].sum()
            areas.append((ranks - yes * (yes + 1) / 2) / (yes * no))
            pairs.append(yes * no)
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


def _unlike(found: Judged) -> list[str]:
    """Doubts about whether those who were contacted have anybody to be compared with."""
    telling = found.figures["telling_kept"][0]
    if telling <= MOST_TELLING:
        return []
    return [
        f"who was contacted could be told beforehand (AUC {telling:.2f}): leave some of each kind out of the next "
        "campaign, drawn by lot"
    ]


def _unmoved(found: Judged, learner: str) -> list[str]:
    """Doubts about whether contact does anything that can be foretold."""
    average, qini, first = (found.figures[name] for name in ("average", f"{learner}.qini", f"{learner}.first"))
    doubts = []
    if not average[1] > 0 and not average[2] < 0:
        doubts.append("on average contact is not known to change anything")
    if not qini[1] > 0:
        doubts.append("whom it helps more than others cannot be foretold")
    elif not first[1] > 0:
        doubts.append("those it is foretold to help most are not known to be helped")
    # A clear average without a ranking, or the other way round, says only what it says.
    return doubts if not (qini[1] > 0 and first[1] > 0) else []


def _placebo(found: Judged, placebo: Judged | None, learner: str) -> list[str]:
    """Doubts because those who were contacted, or foretold to be helped, had already differed before."""
    if placebo is None:
        return ["too few customers are known from before they were contacted: nobody can tell whether they were alike"]
    doubts = []
    average, first = placebo.figures["average"], found.figures[f"{learner}.first"]
    different = average[1] > 0 or average[2] < 0
    if different and abs(average[0]) >= first[1]:
        doubts.append("contact seems to have changed the days before it too: those who were contacted were others")
    if placebo.figures[f"{learner}.qini"][1] > 0 and placebo.figures[f"{learner}.first"][0] >= first[1]:
        doubts.append("the same customers seem to have been helped before they were contacted")
    return doubts


def _said(found: Judged, learner: str) -> str:
    first, rest = (found.figures[f"{learner}.{name}"] for name in ("first", "rest"))
    return (
        f"the third foretold to be helped most gain {first[0]:+.3g} [{first[1]:.3g}, {first[2]:.3g}] by contact, "
        f"the others {rest[0]:+.3g} [{rest[1]:.3g}, {rest[2]:.3g}]"
    )


def _weights(drawn: Draws, customers: NDArray[np.int64]) -> NDArray[np.float32]:
    """How often each row comes up in each draw, (draws, rows); a customer's rows come up together."""
    return drawn.counts[:, np.searchsorted(drawn.customers, customers)].astype(np.float32)


def _mean(values: Floats, weights: NDArray[np.float32]) -> tuple[float, float, float]:
    drawn = (weights @ values) / np.maximum(weights.sum(axis=1), 1)
    return _with_bounds(float(values.mean()), drawn)


def _difference(
    outcome: Floats, reached: NDArray[np.bool_], weights: NDArray[np.float32]
) -> tuple[float, float, float]:
    """Contacted against others as they are: what a shop would read off, and be misled by where it chose whom."""
    apart = [
        (weights[:, who] @ outcome[who]) / np.maximum(weights[:, who].sum(axis=1), 1) for who in (reached, ~reached)
    ]
    return _with_bounds(float(outcome[reached].mean() - outcome[~reached].mean()), apart[0] - apart[1])


def _order(effect: Floats, mailing: NDArray[np.int64]) -> NDArray[np.intp]:
    """The most persuadable first, each by their place within their own mailing."""
    place = np.zeros(len(effect))
    for one in np.unique(mailing):
        here = mailing == one
        place[here] = rankdata(-effect[here]) / here.sum()
    return np.argsort(place, kind="stable")


def _qini(gain: Floats, weights: NDArray[np.float32]) -> tuple[dict[str, tuple[float, float, float]], pd.DataFrame]:
    """The curve of what contacting the first so many gains each customer of the shop, and what it comes to.

    gain: doubly robust scores, the most persuadable first. The coefficient is the area between the curve and the
    straight line of contacting as many by lot (Radcliffe 2007, with the scores of Yadlowsky 2021).
    """
    whole, drawn = _curve(gain, np.ones((1, len(gain)), np.float32))[0], _curve(gain, weights)
    figures = {name: _with_bounds(float(of(whole[None])[0]), of(drawn)) for name, of in _READ.items()}
    low, high = intervals.bounds(drawn)
    return figures, pd.DataFrame({"share": POINTS, "gain": whole, "low": low, "high": high})


def _curve(gain: Floats, weights: NDArray[np.float32]) -> Floats:
    """Cumulative gain at POINTS, a row a draw; over everybody's weight."""
    curves = np.empty((len(weights), len(POINTS)))
    for row, weight in enumerate(weights):
        reached = np.concatenate([[0.0], np.cumsum(weight, dtype=np.float64)])
        gained = np.concatenate([[0.0], np.cumsum(weight * gain)])
        curves[row] = np.interp(POINTS * reached[-1], reached, gained) / max(reached[-1], 1.0)
    return curves


def _area(curves: Floats) -> Floats:
    return np.asarray(np.trapezoid(curves, POINTS, axis=1) - curves[:, -1] / 2)


def _at_first(curves: Floats) -> Floats:
    return np.array([np.interp(FIRST, POINTS, curve) for curve in curves])


_READ: dict[str, Any] = {
    "qini": _area,
    "first": lambda curves: _at_first(curves) / FIRST,
    "rest": lambda curves: (curves[:, -1] - _at_first(curves)) / (1 - FIRST),
}


def _with_bounds(value: float, drawn: Floats) -> tuple[float, float, float]:
    low, high = intervals.bounds(np.asarray(drawn, np.float64)[:, None])
    return value, float(low[0]), float(high[0])
