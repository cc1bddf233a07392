"""Earlier: moments at which the shop could have been asked, and what asking then came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from customers import clock
from customers.shop import Shop
from features import snapshot
from pipelines.failures import NothingToDo, WrongUsage
from training import labels

#: What a night as of the cutoff would have served: the model, or the baseline that it lost to.
SERVED = "served"
#: How the baselines of the night are called beside the rivals.
NAMES = {
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
class Backtest:
    """What a backtest found: the long table (training.backtest.COLUMNS), and what it was made of.

    `model` is the method that the others are compared with; `settings` are those that each rival chose. `curves` are
    for pictures: "reliability" and "gains" (training.curves), each with the method it is of.
    """

    name: str
    model: str
    cutoffs: list[str]
    table: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)


def moments(shop: Shop, count: int, every: int, *, ahead: int, behind: int) -> list[datetime]:
    """Starts of days, oldest first: `ahead` days are known after each, and at least `behind` days before it.

    Fewer than asked for where the history is too short; NothingToDo where it is too short for one.
    """
    if count < 1 or every < 1:
        raise WrongUsage("a backtest needs at least one cutoff, and at least one day between them")
    now = clock.now(shop)
    first = snapshot.first_day(shop.home / "ledger", now, shop.timezone)
    if first is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    calendar = labels.Calendar(first, now, shop.timezone)
    backs = [ahead + every * nth for nth in reversed(range(count))]
    known = [calendar.day_start(back) for back in backs if calendar.history_days - back >= behind]
    if not known:
        raise NothingToDo(
            f"{calendar.history_days} days of sales are known; a backtest needs {ahead + behind}: {behind} to learn "
            f"from and {ahead} to judge on; load more sales"
        )
    return known
