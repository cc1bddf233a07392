"""Plans: the questions a shop asks its models, side by side, one row each."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from models import stocks
from models.shelves import SOURCES
from training import labels, lists, metrics
from training.questions import Frame, Incomparable, Plan, World

__all__ = ["PLANS", "TIE", "Incomparable", "Plan", "World", "plan"]

#: A single window may be an odd one; two are judged where learning is cheap enough.
TWICE = 2
#: How far ahead lists of products are judged; a month is what a campaign is planned for.
LIST_DAYS = 28
#: How far back campaigns are judged: new ones start every few weeks and run for five or more.
OFFER_DAYS = 63
#: Fewer lists with a redemption than this say nothing about which of two models is better.
FEWEST_LISTS = 30
#: How far ahead needs are foretold; they are judged at the middle one.
RESTOCK_DAYS = (7, 14, 28)
#: Differences in the decisive figure below half a percent are ties: twice that is sampling noise on 2,000 customers.
TIE = 0.005


def _month(world: World) -> int:
    return max(1, min(LIST_DAYS, world.calendar.history_days // 4))


def _wait(world: World) -> int:
    return max(1, min(world.wait_days, world.calendar.history_days // 4))


def _curve_days(world: World) -> int:
    """Length of the purchase curve: 180 days, or half the history."""
    return max(1, min(180, world.calendar.history_days // 2))


# Recommender: which products next ----------------------------------------------------------------------------


def _baskets(world: World, rows: Frame, until: date) -> pd.Series:
    calendar = world.calendar
    reach = {
        moment: frame
        for moment, frame in world.baskets.items()
        if calendar.days_back(moment) - _month(world) >= (calendar.known_until - until).days
    }
    return labels.bought_next(rows, reach)


def _judge_lists(world: World, rows: Frame, truth: pd.Series, ranked: Frame) -> dict[str, float]:
    bought = pd.DataFrame({"customer_key": rows["customer_key"].to_numpy(), "product_key": truth.to_numpy()})
    bought = bought.explode("product_key").dropna().astype({"product_key": "int64"})
    before = rows[["customer_key", "product_keys"]].explode("product_keys").dropna()
    before = before.rename(columns={"product_keys": "product_key"}).astype({"product_key": "int64"})
    unknown = bought.merge(before, how="left", indicator=True)
    unknown = unknown.loc[unknown["_merge"] == "left_only", ["customer_key", "product_key"]]
    merged, new = (ranked[ranked["list"] == name] for name in ("any", "new"))
    fresh = {f"new_{name}": value for name, value in lists.ranking(new, unknown, at=(10,)).items()}
    shares = {f"source_{name}": 0.0 for name in SOURCES} | lists.sources(merged)
    shown = lists.variety(merged, catalogue=before["product_key"].nunique()) | shares
    return lists.ranking(merged, bought) | shown | fresh


def _buyers(world: World, rows: Frame, truth: pd.Series) -> np.ndarray:
    """Whoever bought nothing has no list that could be right."""
    return np.array([found is not None and len(found) > 0 for found in truth], dtype=bool)


# Churn: who is drifting away -----------------------------------------------------------------------------------


def _quiet(world: World, rows: Frame, until: date) -> Frame:
    """Whether they stayed away for the horizon, and how long they were watched: part of a horizon teaches too."""
    days, calendar = world.churn_days, world.calendar
    quiet = labels.gone_quiet(rows, world.purchases, days=days, calendar=calendar, until=until)
    return labels.time_to_next(rows, world.purchases, calendar=calendar, until=until).assign(quiet=quiet)


def _active_and_known(world: World, rows: Frame, fate: Frame) -> np.ndarray:
    """Customers everyone knows are gone would flatter the figures: only those seen in the last two horizons count."""
    return np.isfinite(fate["quiet"].to_numpy()) & (rows["recency_days"].to_numpy() <= 2 * world.churn_days)


def _judge_probability(world: World, rows: Frame, fate: Frame, p: np.ndarray) -> dict[str, float]:
    return metrics.probability(fate["quiet"].to_numpy(np.float64), p)


# Timing: when they come back ------------------------------------------------------------------------------------


def _waits(world: World, rows: Frame, until: date) -> Frame:
    return labels.time_to_next(rows, world.purchases, calendar=world.calendar, until=until)


def _active_and_watched(world: World, rows: Frame, waits: Frame) -> np.ndarray:
    return (waits["duration_days"].to_numpy() > 0) & (rows["recency_days"].to_numpy() <= 2 * world.churn_days)


def _judge_curves(world: World, rows: Frame, waits: Frame, survival: np.ndarray) -> dict[str, float]:
    """What decides is told at one level: customers hear of curves that are bent to churn's number anyway."""
    until = _wait(world)
    if survival.shape[1] < until:
        raise Incomparable(f"its curve ends after {survival.shape[1]} days, this night watches {until}")
    return metrics.waiting(
        waits["duration_days"].to_numpy(np.float64), waits["observed"].to_numpy(bool), survival, until,
        level_at=world.churn_days,
    )  # fmt: skip


# Offers: which of them are redeemed -------------------------------------------------------------------------


def _season(world: World) -> int:
    """Long enough for several campaigns to start in it."""
    return max(1, min(OFFER_DAYS, world.calendar.history_days // 4))


def _redeemed(world: World, rows: Frame, until: date) -> np.ndarray:
    return labels.redeemed(rows, world.redemptions, world.offers, calendar=world.calendar, until=until)


def _judge_offers(world: World, rows: Frame, redeemed: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """By household and campaign: that is the list from which somebody chooses."""
    campaign = rows["offer_key"].map(world.offers.drop_duplicates("offer_key").set_index("offer_key")["campaign_id"])
    keys = [rows["customer_key"], rows["as_of"], campaign.fillna("")]
    group = pd.MultiIndex.from_arrays(keys).factorize()[0]
    figures = metrics.groups(group, redeemed, p)
    if figures["groups"] < FEWEST_LISTS:
        figures["map"] = float("nan")
    sure = metrics.probability(redeemed, p)
    return figures | {name: sure[name] for name in ("log_loss", "ece", "bias")}


# Restock: when a category runs out ---------------------------------------------------------------------------


def _needed(world: World, rows: Frame, until: date) -> Frame:
    return labels.needed_next(rows, world.category_days, within=RESTOCK_DAYS, calendar=world.calendar, until=until)


def _regular_needs(world: World, rows: Frame, needed: Frame) -> np.ndarray:
    """What somebody bought once or long ago is no need that runs out; it would flatter the figures."""
    known = np.isfinite(needed[f"within_{RESTOCK_DAYS[1]}"].to_numpy())
    return known & stocks.is_need(rows)


def _judge_needs(world: World, rows: Frame, needed: Frame, chances: np.ndarray) -> dict[str, float]:
    return metrics.probability(needed[f"within_{RESTOCK_DAYS[1]}"].to_numpy(), chances[:, 1])


# Value: what they will be worth ------------------------------------------------------------------------------


def _value_days(world: World) -> int:
    """A third of the history at most: the same days must lie before the horizon that is judged, and before that."""
    return max(1, min(world.value_days, world.calendar.history_days // 3))


def _spent(world: World, rows: Frame, until: date) -> Frame:
    return labels.spent_so_far(rows, world.purchases, days=_value_days(world), calendar=world.calendar, until=until)


def _spent_to_the_end(world: World, rows: Frame, spent: Frame) -> np.ndarray:
    return spent["days"].to_numpy() >= _value_days(world)


def _known(world: World, rows: Frame, outcome: np.ndarray) -> np.ndarray:
    return np.isfinite(outcome)


def _judge_money(world: World, rows: Frame, spent: Frame, expected: np.ndarray) -> dict[str, float]:
    return metrics.money(spent["spent"].to_numpy(np.float64), expected)


PLANS: tuple[Plan, ...] = (
    Plan(
        "recommender", question="Which products will this customer buy in the next four weeks?",
        service="recommender_v1", learner="recommender.Recommender",
        baselines=("bestsellers.Popularity", "bestsellers.DecayedFrequency"),
        decisive="ndcg_10", window=_month, label=_baskets, take=_buyers, judge=_judge_lists,
        settings=lambda world: {"window_days": _month(world)},
        told=lambda world: {name: getattr(world, name) for name in ("products", "prices", "together")},
        floor={"distinct_lists": 0.8, "products_shown": 0.2},
    ),
    Plan(
        "offers", question="Will this customer redeem this offer if they get it?",
        service="offers_v1", learner="offers.Offers", baselines=("offers.AffinityRate",),
        decisive="map", window=_season, label=_redeemed, take=_known, judge=_judge_offers,
        expand="offers", spread=True,
    ),
    Plan(
        "churn", question="Will this customer buy nothing within the churn horizon?",
        service="churn_v1", learner="churn.Churn",
        baselines=(
            "baselines.RecencyChurn", "baselines.RfmLogistic", "seasoned.SeasonedBgNbd", "baselines.BgNbdChurn",
        ),
        cutoffs=TWICE, decisive="log_loss", window=lambda world: world.churn_days, label=_quiet, take=_active_and_known,
        judge=_judge_probability, settings=lambda world: {"horizon_days": world.churn_days},
    ),
    Plan(
        "timing", question="In how many days will this customer buy again?",
        service="timing_v1", learner="timing.Timing",
        baselines=("baselines.KaplanMeierTiming", "baselines.BgNbdTiming"),
        cutoffs=TWICE, decisive="crps_levelled", window=_wait, label=_waits, take=_active_and_watched,
        judge=_judge_curves,
        settings=lambda world: {"days": _curve_days(world)},
    ),
    Plan(
        "restock", question="Will this customer buy from this category again within one, two or four weeks?",
        service="restock_v1", learner="restock.Restock", baselines=("stocks.PairRhythm", "stocks.OwnRate"),
        cutoffs=TWICE, decisive="log_loss", window=_month, label=_needed, take=_regular_needs, judge=_judge_needs,
        expand="needs",
    ),
    Plan(
        "value", question="How much will this customer spend over the value horizon?",
        service="value_v1", learner="value.Value", baselines=("spending.RateValue", "spending.BgNbdGammaGamma"),
        cutoffs=TWICE, decisive="ngini", window=_value_days, label=_spent, take=_spent_to_the_end, judge=_judge_money,
        settings=lambda world: {"horizon_days": _value_days(world)},
    ),
)  # fmt: skip


def plan(name: str) -> Plan:
    """The plan of this name."""
    found = {row.name: row for row in PLANS}
    if name not in found:
        raise KeyError(f"no question is called {name!r}; there are {', '.join(found)}")
    return found[name]
