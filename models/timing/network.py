"""A small network that bends the rhythm's daily chances of buying: what it is told, and what it answers.

Answering needs numpy only; the weights are found in models/timing/network_training.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.base import Floats, matrix
from models.survival.censored_durations import CensoredDurations, Floats32, Ints
from models.timing import weekday_profile

Weights = dict[str, Floats32]

#: Days from as_of at which the effect of a customer's features on the daily chance may bend.
KNOT_DAYS = (1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 65, 90, 130, 180)
#: An answer is a straight line in these weights: their mean over several starts gives the mean answer.
AVERAGED_WEIGHTS = ("week", "pull")


class NetworkInputs(NamedTuple):
    """What the network is told of each row."""

    features: Floats32  # (rows, features), scaled
    daily_log_odds: Floats32  # (rows, days): the rhythm's log odds of buying on each day
    weekday: Ints  # of the first day ahead, Monday 0
    weekday_lift: Floats32  # (rows, 7): log of how much oftener than one in seven the customer came on a weekday

    def subset(self, which: Any) -> NetworkInputs:
        """Some of the rows."""
        return NetworkInputs(*(part[which] for part in self))


@dataclass(frozen=True)
class NetworkExamples:
    """Rows to learn from, and how long each was watched."""

    inputs: NetworkInputs
    durations: CensoredDurations

    def subset(self, which: Any) -> NetworkExamples:
        """Some of the rows."""
        return NetworkExamples(self.inputs.subset(which), self.durations.subset(which))


def fit_scales(values: Floats) -> Weights:
    """How to bring each feature to a common size: what stands for a missing one, its centre and its width."""
    logs = _signed_log(values)
    is_observed = ~np.isnan(logs)
    counts = np.maximum(is_observed.sum(axis=0), 1)
    centre = np.where(is_observed, logs, 0.0).sum(axis=0) / counts
    width = np.sqrt((np.where(is_observed, logs - centre, 0.0) ** 2).sum(axis=0) / counts)
    fill = [
        np.median(column[has_value]) if has_value.any() else 0.0
        for column, has_value in zip(logs.T, is_observed.T, strict=True)
    ]
    parts = {"centre": centre, "width": np.maximum(width, 1e-3), "fill": np.array(fill)}
    return {name: part.astype(np.float32) for name, part in parts.items()} | {
        "gaps": np.flatnonzero((~is_observed).any(axis=0)).astype(np.float32)
    }


def _signed_log(values: Floats) -> Floats:
    """Sizes on a scale on which money, days and shares are alike; the sign stays."""
    logs: Floats = np.sign(values) * np.log1p(np.abs(values))
    return logs


def build_inputs(
    frame: pd.DataFrame, columns: list[str], scales: Weights, terms: Floats, daily_log_odds: Floats32
) -> NetworkInputs:
    """Tell the network of each row: its features brought to size, and what the rhythm says."""
    logs = _signed_log(matrix(frame, columns))
    missing = np.isnan(logs)
    scaled = np.clip((np.where(missing, scales["fill"], logs) - scales["centre"]) / scales["width"], -4, 4)
    features = np.hstack([scaled, missing[:, scales["gaps"].astype(int)], terms]).astype(np.float32)
    return NetworkInputs(
        features, daily_log_odds, weekday_profile.first_weekday(frame), weekday_profile.log_weekday_lift(frame)
    )


def hat_basis(days: int) -> Floats32:
    """Hats over the bends on a log scale of days: array (bends, days); every day's hats add up to 1."""
    knots = np.log([knot for knot in KNOT_DAYS if knot < days] + [days])
    ahead = np.log(np.arange(1, days + 1))
    return np.array([np.interp(ahead, knots, unit) for unit in np.eye(len(knots))], dtype=np.float32)


def log_odds(weights: Weights, inputs: NetworkInputs, days: int) -> Floats32:
    """Log odds of buying on each day ahead, given none before it: array (rows, days)."""
    layers = sorted(name for name in weights if name.startswith("layer"))
    hidden = np.broadcast_to(inputs.features, (len(weights["layer0"]), *inputs.features.shape))
    for number, name in enumerate(layers):
        hidden = hidden @ weights[name] + weights[f"shift{number}"][:, None, :]
        if name != layers[-1]:
            hidden = np.maximum(hidden, 0)
    adjustment = hidden.mean(axis=0)
    target = (inputs.weekday[:, None] + np.arange(days)) % 7
    lift = np.take_along_axis(inputs.weekday_lift, target, axis=1)
    odds: Floats32 = inputs.daily_log_odds + adjustment[:, :-1] @ hat_basis(days) + weights["week"][target]
    odds += (weights["pull"] + adjustment[:, -1:]) * lift
    return odds


def loss(weights: Weights, examples: NetworkExamples, days: int) -> float:
    """Minus the log likelihood of what happened, a row."""
    odds = log_odds(weights, examples.inputs, days).astype(np.float64)
    follow_up_days, has_purchase = examples.durations.follow_up_days, examples.durations.has_purchase
    survival_terms = (np.logaddexp(0, odds) * (np.arange(1, days + 1) <= follow_up_days[:, None])).sum()
    purchase_terms = odds[np.flatnonzero(has_purchase), follow_up_days[has_purchase] - 1].sum()
    return float((survival_terms - purchase_terms) / len(odds))


def as_ensemble(weights: Weights) -> Weights:
    """The weights of one start in the shape of several."""
    return {name: part if name in AVERAGED_WEIGHTS else part[None] for name, part in weights.items()}


def combine_ensemble(starts: list[Weights]) -> Weights:
    """The weights of several starts as one network, whose answer is the mean of theirs (on log odds)."""
    stacked = {name: np.stack([weights[name] for weights in starts]) for name in starts[0]}
    return {name: part.mean(axis=0) if name in AVERAGED_WEIGHTS else part for name, part in stacked.items()}
