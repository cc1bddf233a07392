"""Earlier: moments at which the shop could have been asked, and what asking then came to."""

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

#: What a night as of the cutoff would have served: the model, or the baseline that it lost to.
SERVED = "served"
#: How the baselines of the night are called beside the rivals.
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
    """What a backtest found: the long table (training.evaluation.method_comparison.COLUMNS), and what it was made of.

    `model` is the method that the others are compared with; `settings` are those that each rival chose. `curves` are
    for pictures: "reliability" and "gains" (training.evaluation.calibration_curves), each with the method it is of.
    """

    name: str
    model: str
    cutoffs: list[str]
    table: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)


def choose_cutoffs(shop: Shop, count: int, every: int, *, outcome_days: int, history_days: int) -> list[datetime]:
    """Starts of days, oldest first: `ahead` days are known after each, and at least `behind` days before it.

    Fewer than asked for where the history is too short; NothingToDo where it is too short for one.
    """
    if count < 1 or every < 1:
        raise WrongUsage("a backtest needs at least one cutoff, and at least one day between them")
    now = clock.now(shop)
    first_day = snapshot.first_sale_day(shop.home / "ledger", now, shop.timezone)
    if first_day is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    calendar = training_calendar.TrainingCalendar(first_day, now, shop.timezone)
    backs = [outcome_days + every * nth for nth in reversed(range(count))]
    cutoffs = [calendar.day_start(back) for back in backs if calendar.history_days - back >= history_days]
    if not cutoffs:
        raise NothingToDo(
            f"{calendar.history_days} days of sales are known; a backtest needs {outcome_days + history_days}: {history_days} to learn "
            f"from and {outcome_days} to judge on; load more sales"
        )
    return cutoffs
