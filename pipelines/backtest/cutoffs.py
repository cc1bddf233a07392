"""Cutoffs of a backtest, the names of its methods, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from customers import clock
from customers.shop.settings import Shop
from features.snapshots import snapshot
from pipelines.errors import NothingToDo, WrongUsage
from training import calendar as training_calendar

#: What a nightly run as of the cutoff would have served: the model, or a baseline that is no worse.
SERVED = "served"
#: Names of the served baselines in tables of a backtest, by learner id.
METHOD_NAMES = {
    "bestsellers.Popularity": "popularity, lately",
    "bestsellers.DecayedFrequency": "decayed frequency",
    "offers.AffinityRate": "affinity x rate",
    "baselines.RecencyChurn": "recency",
    "baselines.RfmLogistic": "RFM, logistic",
    "baselines.BgNbdChurn": "BG/NBD",
    "seasoned.SeasonedBgNbd": "BG/NBD and season",
    "baselines.KaplanMeierTiming": "Kaplan-Meier cells",
    "baselines.BgNbdTiming": "BG/NBD",
    "stocks.PairRhythm": "BG/NBD",
    "stocks.OwnRate": "own rate",
    "spending.RateValue": "rate so far",
    "spending.BgNbdGammaGamma": "BG/NBD, Gamma-Gamma",
}


@dataclass(frozen=True)
class BacktestResult:
    """Result of a backtest: a long table with columns training.evaluation.method_comparison.COLUMNS, and its inputs.

    `model` is the method that the others are compared with, `settings` the tuned settings of each benchmark. `curves`
    are for plots: "reliability" and "gains" (training.evaluation.calibration_curves), with a further column method.
    """

    name: str
    model: str
    cutoffs: list[str]
    table: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)


def choose_cutoffs(shop: Shop, count: int, every: int, *, outcome_days: int, history_days: int) -> list[datetime]:
    """Up to `count` starts of days, `every` days apart, oldest first.

    `outcome_days` complete days follow each, and at least `history_days` lie before it. Raises WrongUsage for a count
    or a step below one, NothingToDo where the history is too short for a single cutoff.
    """
    if count < 1 or every < 1:
        raise WrongUsage("a backtest needs at least one cutoff, and at least one day between them")
    now = clock.now(shop)
    first_day = snapshot.first_sale_day(shop.ledger, now, shop.timezone)
    if first_day is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    calendar = training_calendar.TrainingCalendar(first_day, now, shop.timezone)
    days_back = [outcome_days + every * nth for nth in reversed(range(count))]
    cutoffs = [calendar.day_start(days) for days in days_back if calendar.history_days - days >= history_days]
    if not cutoffs:
        raise NothingToDo(
            f"there are {calendar.history_days} days of sales; a backtest needs {outcome_days + history_days}: "
            f"{history_days} to train on and {outcome_days} to evaluate on; load more sales"
        )
    return cutoffs
