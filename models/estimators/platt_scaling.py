"""Platt scaling: a logistic regression of outcomes on log odds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from models.base import Floats
from models.estimators import logistic_regression
from models.survival import outcomes as survival_outcomes

#: No level is moved farther than this, in log odds.
MAX_SHIFT = 3.0


class PlattScaling(NamedTuple):
    """Platt's line on log odds: what was said against what came true."""

    offset: float = 0.0
    slope: float = 1.0

    def __call__(self, log_odds: Floats) -> Floats:
        """Log odds put right."""
        return self.offset + self.slope * log_odds


def fit_platt(log_odds: Floats, outcome: Floats) -> PlattScaling:
    """Platt's line by maximum likelihood; the level alone where it would turn round; nothing where few met a fate."""
    if min(outcome.sum(), (1 - outcome).sum()) < survival_outcomes.MIN_OUTCOMES:
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
    """The log loss of each row."""
    loss: Floats = np.logaddexp(0, log_odds) - outcome * log_odds
    return loss


def shift_to_mean(log_odds: Floats, target: float) -> float:
    """What to add to log odds so that their mean chance is this level."""
    if not len(log_odds):
        return 0.0

    def excess(by: float) -> float:
        return float(expit(log_odds + by).mean() - target)

    if excess(-MAX_SHIFT) >= 0 or excess(MAX_SHIFT) <= 0:
        return MAX_SHIFT if excess(MAX_SHIFT) <= 0 else -MAX_SHIFT
    return float(brentq(excess, -MAX_SHIFT, MAX_SHIFT, xtol=1e-9))
