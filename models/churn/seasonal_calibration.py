"""Season: how far the rhythm of purchases was wrong at this time of the year, and so how far it is wrong now.

Before Christmas more customers come back than their own past would tell; in January fewer do. What the rhythm said
a year ago, from what was known then, is set beside what came: the same line puts it right today.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models import base
from models.base import Floats
from models.estimators import platt_scaling
from models.estimators.platt_scaling import PlattScaling
from models.survival import censored_durations
from models.survival import outcomes as survival_outcomes

Timestamps = NDArray[np.datetime64]
#: The fewest moments on which a line drawn at earlier ones must have proved itself.
MIN_VALIDATION_CUTOFFS = 2
#: No season's slope is trusted beyond so many times the usual one.
MAX_SLOPE_RATIO = 2.0
A_YEAR_AGO, EARLIER, LATEST = "a year ago", "all earlier moments", "the latest moment"


class SeasonalCalibration(NamedTuple):
    """A line, where it was drawn, and what it did there: log loss before and after, in customers it never saw."""

    line: PlattScaling = PlattScaling()
    told_by: str = ""
    day: str = ""
    customers: int = 0
    before: float = 0.0
    after: float = 0.0

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read back what `_asdict` gave."""
        return cls(**content | {"line": PlattScaling(*content["line"])})


#: Where nothing tells of the season, the rhythm is taken at its word.
IDENTITY, NO_SEASON = PlattScaling(), SeasonalCalibration()


@dataclass(frozen=True)
class PastPredictions:
    """What the rhythm said of active customers at each moment, and what came: a row a customer and moment.

    `odds` are of no purchase within the horizon, by parameters fitted at the row's own moment; `quiet` is 1, 0, or
    NaN while nobody can say; `seen_days` is how much history the shop had at the row's moment.
    """

    cutoff: Timestamps
    log_odds: Floats
    churned: Floats
    history_days: Floats

    def with_outcome(self) -> PastPredictions:
        """The rows whose outcome is known."""
        return self.subset(np.isfinite(self.churned))

    def subset(self, which: NDArray[np.bool_]) -> PastPredictions:
        """Some of the rows."""
        return PastPredictions(self.cutoff[which], self.log_odds[which], self.churned[which], self.history_days[which])


def fit_calibration(
    predictions: PastPredictions, latest_cutoff: np.datetime64, horizon_days: int
) -> SeasonalCalibration:
    """The line that puts the rhythm right from now on: last year's where there is one, else what earlier ones teach.

    Without last year, lines drawn through all earlier moments and through the latest one are tried at every moment
    whose outcome is known. Only a line that clearly helped is kept; the latest moment's seldom does: where seasons
    change it tells of the wrong one (Online Retail II, 2010: log loss .636 against the rhythm's own .605).
    """
    labelled = predictions.with_outcome()
    year_ago = _cutoff_a_year_ago(labelled, latest_cutoff, horizon_days)
    return (
        _validated(labelled, horizon_days)
        if year_ago is None
        else _cross_validated(labelled.subset(labelled.cutoff == year_ago), A_YEAR_AGO)
    )


def slope_ratio(calibration: SeasonalCalibration, predictions: PastPredictions) -> float:
    """How much farther apart customers are in this season than in all others: half of what the rhythm's line says.

    Half, because one season is one season: the whole was no better than none on both shops' own lines.
    """
    if calibration.told_by != A_YEAR_AGO or calibration.line == IDENTITY:
        return 1.0
    labelled = predictions.with_outcome()
    ratio = calibration.line.slope / platt_scaling.fit_platt(labelled.log_odds, labelled.churned).slope
    return float(np.sqrt(np.clip(ratio, 1 / MAX_SLOPE_RATIO, MAX_SLOPE_RATIO)))


def _cutoff_a_year_ago(
    labelled: PastPredictions, latest_cutoff: np.datetime64, horizon_days: int
) -> np.datetime64 | None:
    """The moment nearest to a year before now, where enough had been seen by then."""
    cutoffs = np.unique(labelled.cutoff[labelled.history_days >= base.MIN_HORIZONS * horizon_days])
    days_off = np.abs((cutoffs - latest_cutoff) / np.timedelta64(1, "D") + base.YEAR_DAYS)
    return cutoffs[np.argmin(days_off)] if len(days_off) and days_off.min() <= base.YEAR_TOLERANCE_DAYS else None


def _cross_validated(predictions: PastPredictions, source: str) -> SeasonalCalibration:
    """The line of one moment if it helps customers it was not drawn from by two standard errors; else no change."""
    fold = np.arange(len(predictions.log_odds)) % 5
    before = platt_scaling.log_loss(predictions.log_odds, predictions.churned)
    after = before.copy()
    for left_out in range(5):
        fold_platt = platt_scaling.fit_platt(
            predictions.log_odds[fold != left_out], predictions.churned[fold != left_out]
        )
        after[fold == left_out] = platt_scaling.log_loss(
            fold_platt(predictions.log_odds[fold == left_out]), predictions.churned[fold == left_out]
        )
    gain = before - after
    is_clear = gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    platt = platt_scaling.fit_platt(predictions.log_odds, predictions.churned) if is_clear else PlattScaling()
    return SeasonalCalibration(
        platt, source, _latest_day(predictions), len(predictions.log_odds), float(before.mean()), float(after.mean())
    )


def _validated(labelled: PastPredictions, horizon_days: int) -> SeasonalCalibration:
    """The best of the lines drawn through earlier moments, if it clearly helped at later ones; else no change."""
    losses_by_cutoff = [
        _validation_losses(labelled, this_cutoff, horizon_days) for this_cutoff in np.unique(labelled.cutoff)
    ]
    losses = np.array([losses for losses in losses_by_cutoff if losses is not None]).reshape(-1, 3)
    if len(losses) < MIN_VALIDATION_CUTOFFS:
        return NO_SEASON
    gains = losses[:, :1] - losses[:, 1:]
    best = int(np.argmax(gains.mean(axis=0)))
    gain = gains[:, best]
    if gain.mean() <= 2 * gain.std() / np.sqrt(len(gain)):
        return NO_SEASON
    predictions = labelled if best == 0 else labelled.subset(labelled.cutoff == labelled.cutoff.max())
    before, after = losses[:, 0].mean(), losses[:, 1 + best].mean()
    source = (EARLIER, LATEST)[best]
    return SeasonalCalibration(
        platt_scaling.fit_platt(predictions.log_odds, predictions.churned),
        source,
        _latest_day(predictions),
        len(predictions.log_odds),
        float(before),
        float(after),
    )


def _validation_losses(
    labelled: PastPredictions, this_cutoff: np.datetime64, horizon_days: int
) -> tuple[float, float, float] | None:
    """Log loss at a moment: as said, by the line of all moments complete by then, by that of the latest of them."""
    complete = labelled.subset(censored_durations.has_elapsed(labelled.cutoff, horizon_days, this_cutoff))
    if min(complete.churned.sum(), (1 - complete.churned).sum()) < survival_outcomes.MIN_OUTCOMES:
        return None
    predictions, latest_complete = (
        labelled.subset(labelled.cutoff == this_cutoff),
        complete.subset(complete.cutoff == complete.cutoff.max()),
    )
    lines = (
        PlattScaling(),
        platt_scaling.fit_platt(complete.log_odds, complete.churned),
        platt_scaling.fit_platt(latest_complete.log_odds, latest_complete.churned),
    )
    raw_loss, earlier_loss, latest_loss = (
        float(platt_scaling.log_loss(platt(predictions.log_odds), predictions.churned).mean()) for platt in lines
    )
    return raw_loss, earlier_loss, latest_loss


def _latest_day(predictions: PastPredictions) -> str:
    return str(predictions.cutoff.max().astype("datetime64[D]"))
