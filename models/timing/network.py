"""A small network that bends the rhythm's daily chances of buying: what it is told, and what it answers.

Answering needs numpy only; the weights are found in models/timing_training.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models import waits
from models.base import Floats, matrix
from models.waits import Singles, Waits, Whole

Weights = dict[str, Singles]

#: Days from as_of at which the effect of a customer's features on the daily chance may bend.
BENDS = (1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 65, 90, 130, 180)
#: An answer is a straight line in these weights: their mean over several starts gives the mean answer.
SHARED = ("week", "pull")


class Given(NamedTuple):
    """What the network is told of each row."""

    features: Singles  # (rows, features), scaled
    daily: Singles  # (rows, days): the rhythm's log odds of buying on each day
    weekday: Whole  # of the first day ahead, Monday 0
    habit: Singles  # (rows, 7): log of how much oftener than one in seven the customer came on a weekday

    def rows(self, which: Any) -> Given:
        """Some of the rows."""
        return Given(*(part[which] for part in self))


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from, and how long each was watched."""

    given: Given
    waits: Waits

    def rows(self, which: Any) -> Lesson:
        """Some of the rows."""
        return Lesson(self.given.rows(which), self.waits.where(which))


def scales_of(values: Floats) -> Weights:
    """How to bring each feature to a common size: what stands for a missing one, its centre and its width."""
    logs = _logs(values)
    known = ~np.isnan(logs)
    counts = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, logs, 0.0).sum(axis=0) / counts
    width = np.sqrt((np.where(known, logs - centre, 0.0) ** 2).sum(axis=0) / counts)
    fill = [np.median(column[seen]) if seen.any() else 0.0 for column, seen in zip(logs.T, known.T, strict=True)]
    parts = {"centre": centre, "width": np.maximum(width, 1e-3), "fill": np.array(fill)}
    return {name: part.astype(np.float32) for name, part in parts.items()} | {
        "gaps": np.flatnonzero((~known).any(axis=0)).astype(np.float32)
    }


def _logs(values: Floats) -> Floats:
    """Sizes on a scale on which money, days and shares are alike; the sign stays."""
    logs: Floats = np.sign(values) * np.log1p(np.abs(values))
    return logs


def tell(frame: pd.DataFrame, columns: list[str], scales: Weights, terms: Floats, daily: Singles) -> Given:
    """Tell the network of each row: its features brought to size, and what the rhythm says."""
    logs = _logs(matrix(frame, columns))
    missing = np.isnan(logs)
    scaled = np.clip((np.where(missing, scales["fill"], logs) - scales["centre"]) / scales["width"], -4, 4)
    features = np.hstack([scaled, missing[:, scales["gaps"].astype(int)], terms]).astype(np.float32)
    return Given(features, daily, waits.first_weekday(frame), waits.habit(frame))


def basis(days: int) -> Singles:
    """Hats over the bends on a log scale of days: array (bends, days); every day's hats add up to 1."""
    bends = np.log([bend for bend in BENDS if bend < days] + [days])
    ahead = np.log(np.arange(1, days + 1))
    return np.array([np.interp(ahead, bends, one) for one in np.eye(len(bends))], dtype=np.float32)


def log_odds(weights: Weights, given: Given, days: int) -> Singles:
    """Log odds of buying on each day ahead, given none before it: array (rows, days)."""
    layers = sorted(name for name in weights if name.startswith("layer"))
    hidden = np.broadcast_to(given.features, (len(weights["layer0"]), *given.features.shape))
    for number, name in enumerate(layers):
        hidden = hidden @ weights[name] + weights[f"shift{number}"][:, None, :]
        if name != layers[-1]:
            hidden = np.maximum(hidden, 0)
    bent = hidden.mean(axis=0)
    target = (given.weekday[:, None] + np.arange(days)) % 7
    habit = np.take_along_axis(given.habit, target, axis=1)
    odds: Singles = given.daily + bent[:, :-1] @ basis(days) + weights["week"][target]
    odds += (weights["pull"] + bent[:, -1:]) * habit
    return odds


def loss(weights: Weights, lesson: Lesson, days: int) -> float:
    """Minus the log likelihood of what happened, a row."""
    odds = log_odds(weights, lesson.given, days).astype(np.float64)
    watched, bought = lesson.waits.watched, lesson.waits.bought
    waiting = (np.logaddexp(0, odds) * (np.arange(1, days + 1) <= watched[:, None])).sum()
    came = odds[np.flatnonzero(bought), watched[bought] - 1].sum()
    return float((waiting - came) / len(odds))


def alone(weights: Weights) -> Weights:
    """The weights of one start in the shape of several."""
    return {name: part if name in SHARED else part[None] for name, part in weights.items()}


def together(grown: list[Weights]) -> Weights:
    """The weights of several starts as one network, whose answer is the mean of theirs (on log odds)."""
    each = {name: np.stack([weights[name] for weights in grown]) for name in grown[0]}
    return {name: part.mean(axis=0) if name in SHARED else part for name, part in each.items()}
