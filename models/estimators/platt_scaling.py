"""Platt scaling: a logistic regression of outcomes on log odds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from models.base import Floats
from models.estimators import logistic_regression
from models.survival import outcomes

#: Largest shift of log odds, in either direction.
MAX_SHIFT = 3.0


class PlattScaling(NamedTuple):
    """Calibrated log odds as a linear function of predicted log odds."""

    offset: float = 0.0
    slope: float = 1.0

    def __call__(self, log_odds: Floats) -> Floats:
        """Calibrated log odds: array (n,)."""
        return self.offset + self.slope * log_odds


def fit_platt(log_odds: Floats, outcome: Floats) -> PlattScaling:
    """Maximum-likelihood scaling of log odds (n,) to outcomes 0 or 1 (n,).

    Where the slope would be negative, only the mean is matched; with too few outcomes of either kind, the identity.
    """
    if min(outcome.sum(), (1 - outcome).sum()) < outcomes.MIN_OUTCOMES:
        return PlattScaling()
    centre, width = float(log_odds.mean()), max(float(log_odds.std()), 1e-6)
    intercept, scaled_slope = logistic_regression.fit_weights(
        ((log_odds - centre) / width)[:, None], outcome, ridge=1e-3
    )
    slope = float(scaled_slope / width)
    offset = float(intercept - slope * centre)
    return (
        PlattScaling(offset, slope) if slope > 0 else PlattScaling(shift_to_mean(log_odds, float(outcome.mean())), 1.0)
    )


def log_loss(log_odds: Floats, outcome: Floats) -> Floats:
    """The log loss of each row, from log odds (n,) and outcomes (n,)."""
    loss: Floats = np.logaddexp(0, log_odds) - outcome * log_odds
    return loss


def shift_to_mean(log_odds: Floats, target: float) -> float:
    """The shift of log odds (n,) that makes their mean probability equal to the target, at most MAX_SHIFT."""
    if not len(log_odds):
        return 0.0

    def excess(by: float) -> float:

        return float(expit(log_odds + by).mean() - target)

    if excess(-MAX_SHIFT) >= 0 or excess(MAX_SHIFT) <= 0:
        return MAX_SHIFT if excess(MAX_SHIFT) <= 0 else -MAX_SHIFT
    from scipy.optimize import brentq  # imported here: a server never fits

    return float(brentq(excess, -MAX_SHIFT, MAX_SHIFT, xtol=1e-9))
