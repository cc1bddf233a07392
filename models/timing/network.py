"""A small neural network that adjusts BG/NBD's daily log odds of a purchase: inputs and forward pass.

Prediction needs numpy only; the weights are trained in models/timing/network_training.py.
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

#: Knots, in days from as_of, of the effect of a customer's features on the daily log odds.
KNOT_DAYS = (1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 65, 90, 130, 180)
#: Log odds are linear in these weights: averaging them over several starts averages the log odds.
AVERAGED_WEIGHTS = ("week", "pull")


class NetworkInputs(NamedTuple):
    """The inputs of each row."""

    features: Floats32  # (n, features), scaled
    daily_log_odds: Floats32  # (n, days): BG/NBD's log odds of a purchase on each day
    weekday: Ints  # (n,): of the first day ahead, Monday 0
    weekday_lift: Floats32  # (n, 7): log of the customer's share of visits on each weekday over 1/7

    def subset(self, which: Any) -> NetworkInputs:
        """The rows selected by a mask or positions."""
        return NetworkInputs(*(part[which] for part in self))


@dataclass(frozen=True)
class NetworkExamples:
    """Training rows: inputs, and right-censored days to the next purchase."""

    inputs: NetworkInputs
    durations: CensoredDurations

    def subset(self, which: Any) -> NetworkExamples:
        """The rows selected by a mask or positions."""
        return NetworkExamples(self.inputs.subset(which), self.durations.subset(which))


def fit_scales(values: Floats) -> Weights:
    """Imputation value, centre and width of each column of values (n, columns), on the signed log scale.

    `gaps` holds the positions of the columns with missing values.
    """
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
    """sign(x) log(1 + |x|): puts money, days and shares on a comparable scale."""
    logs: Floats = np.sign(values) * np.log1p(np.abs(values))
    return logs


def build_inputs(
    frame: pd.DataFrame, columns: list[str], scales: Weights, terms: Floats, daily_log_odds: Floats32
) -> NetworkInputs:
    """The network's inputs: scaled columns, missing-value indicators, BG/NBD terms and log odds, weekdays.

    terms: (n, 3), from `survival_features.bgnbd_terms`.
    daily_log_odds: (n, days), from `survival_features.log_odds_ahead`.
    """
    logs = _signed_log(matrix(frame, columns))
    missing = np.isnan(logs)
    scaled = np.clip((np.where(missing, scales["fill"], logs) - scales["centre"]) / scales["width"], -4, 4)
    features = np.hstack([scaled, missing[:, scales["gaps"].astype(int)], terms]).astype(np.float32)
    return NetworkInputs(
        features, daily_log_odds, weekday_profile.first_weekday(frame), weekday_profile.log_weekday_lift(frame)
    )


def hat_basis(days: int) -> Floats32:
    """Piecewise linear basis over log days with knots at KNOT_DAYS: array (n_knots, n_days); each day sums to 1."""
    knots = np.log([knot for knot in KNOT_DAYS if knot < days] + [days])
    ahead = np.log(np.arange(1, days + 1))
    return np.array([np.interp(ahead, knots, unit) for unit in np.eye(len(knots))], dtype=np.float32)


def log_odds(weights: Weights, inputs: NetworkInputs, days: int) -> Floats:
    """Log odds of a purchase on each day ahead, given none before it: array (n, days).

    In double precision: sums of single precision depend on how many rows are scored together.
    """
    layers = sorted(name for name in weights if name.startswith("layer"))
    features = inputs.features.astype(np.float64)
    hidden = np.broadcast_to(features, (len(weights["layer0"]), *features.shape))
    for number, name in enumerate(layers):
        hidden = hidden @ weights[name] + weights[f"shift{number}"][:, None, :]
        if name != layers[-1]:
            hidden = np.maximum(hidden, 0)
    adjustment = hidden.mean(axis=0)
    target = (inputs.weekday[:, None] + np.arange(days)) % 7
    lift = np.take_along_axis(inputs.weekday_lift, target, axis=1)
    odds: Floats = inputs.daily_log_odds + adjustment[:, :-1] @ hat_basis(days) + weights["week"][target]
    odds += (weights["pull"] + adjustment[:, -1:]) * lift
    return odds


def loss(weights: Weights, examples: NetworkExamples, days: int) -> float:
    """Mean negative log likelihood per row."""
    odds = log_odds(weights, examples.inputs, days).astype(np.float64)
    follow_up_days, has_purchase = examples.durations.follow_up_days, examples.durations.has_purchase
    survival_terms = (np.logaddexp(0, odds) * (np.arange(1, days + 1) <= follow_up_days[:, None])).sum()
    purchase_terms = odds[np.flatnonzero(has_purchase), follow_up_days[has_purchase] - 1].sum()
    return float((survival_terms - purchase_terms) / len(odds))


def as_ensemble(weights: Weights) -> Weights:
    """The weights of one start in the shape of an ensemble of several."""
    return {name: part if name in AVERAGED_WEIGHTS else part[None] for name, part in weights.items()}


def combine_ensemble(starts: list[Weights]) -> Weights:
    """The weights of several starts as one network, which predicts the mean of their log odds."""
    stacked = {name: np.stack([weights[name] for weights in starts]) for name in starts[0]}
    return {name: part.mean(axis=0) if name in AVERAGED_WEIGHTS else part for name, part in stacked.items()}
