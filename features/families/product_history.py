"""Staples: how often, how regularly and how lately a customer buys each product; and the shelf of all."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features import engine
from features.lines import MONEY

if TYPE_CHECKING:
    from feast import FeatureView

HALF_LIVES = (28, 56, 84, 120)
LONGEST_SHELF = 1_000  # products; serving reads a whole shelf at once, and nobody is offered their 1,001st

SHELF = {
    "product_keys": "Int64",
    "weights_28d": "Float32",
    "weights_56d": "Float32",
    "weights_84d": "Float32",
    "weights_120d": "Float32",
    "times": "Int64",
    "last_days": "Int64",
    "first_days": "Int64",
}


def product_days(bought: ir.Table, timezone: str) -> ir.Table:
    """One row for a customer, a product and a day: worth, and the gap to the day they bought it before."""
    days = worth(bought.mutate(day=engine.day_of(bought.sold_at, timezone)))
    before = ibis.window(group_by=["customer_key", "product_key"], order_by="day")
    return days.mutate(gap_days=days.day - days.day.lag().over(before))


def worth(dated: ir.Table, *also: str) -> ir.Table:
    """What each customer paid for each product on each day, in ten-thousandths; see engine.whole."""
    paid = engine.whole(engine.total(dated.amount), MONEY)
    return dated.group_by("customer_key", "product_key", "day", *also).aggregate(worth=paid)


def columns(seen: ir.Table) -> dict[str, ir.Value]:
    """What a product is to a customer, over the product-days seen from a moment."""
    named = {feature.__name__: feature(seen) for feature in FEATURES}
    return named | {f"weight_{h}d": weight(seen, h) for h in HALF_LIVES}


def times(seen: ir.Table) -> ir.Value:
    """Days on which they bought it."""
    return seen.count()


def recency_days(seen: ir.Table) -> ir.Value:
    """Days since they last bought it, by the shop's calendar."""
    return seen.age_days.min()


def first_days(seen: ir.Table) -> ir.Value:
    """Days since they first bought it."""
    return seen.age_days.max()


def gap_mean_days(seen: ir.Table) -> ir.Value:
    """Mean days between buying it and buying it again; NULL if bought once."""
    return engine.ratio(first_days(seen) - recency_days(seen), times(seen) - 1)


def gap_cv(seen: ir.Table) -> ir.Value:
    """How irregular those gaps are: 0 is a clock, 1 is chance; NULL with fewer than two gaps."""
    gaps = times(seen) - 1
    spread = engine.ratio((seen.gap_days.cast("float64") ** 2).sum(), gaps) - gap_mean_days(seen) ** 2
    return ibis.cases((gaps >= 2, engine.ratio(ibis.greatest(spread, 0.0).sqrt(), gap_mean_days(seen))))


def spend(seen: ir.Table) -> ir.Value:
    """What they ever paid for it."""
    return seen.worth.sum() / MONEY


def weight(seen: ir.Table, half_life_days: int) -> ir.Value:
    """Days of purchase, each counted half for every half_life_days it lies back."""
    return engine.decayed(seen.age_days, half_life_days).sum() / engine.STEPS_OF_A_WEIGHT


FEATURES = (times, recency_days, first_days, gap_mean_days, gap_cv, spend)


def weighed(seen: ir.Table) -> dict[str, ir.Value]:
    """The columns that a shelf is made of."""
    return {"times": times(seen), "recency_days": recency_days(seen), "first_days": first_days(seen)} | {
        f"weight_{h}d": weight(seen, h) for h in HALF_LIVES
    }


def shelf(pairs: ir.Table) -> ir.Table:
    """One row for a customer and a moment: aligned lists over the products they bought, heaviest first.

    Heaviest by weight_84d, then by product_key. Of a customer with more than LONGEST_SHELF products, the most
    lately bought are kept.
    """
    weights = {f"weights_{h}d": pairs[f"weight_{h}d"].cast("float32") for h in HALF_LIVES}
    return engine.listed(
        pairs,
        {
            "product_keys": pairs.product_key,
            **weights,
            "times": pairs.times,
            "last_days": pairs.recency_days,
            "first_days": pairs.first_days,
        },
        lately=[pairs.recency_days, -pairs.weight_84d, pairs.product_key],
        heaviest=[-pairs.weight_84d, pairs.product_key],
        longest=LONGEST_SHELF,
    )


def view(folder: Path) -> "FeatureView":
    """What Feast is told about the shelf; the lists lie in folder/shelf/part.parquet."""
    from features import views

    return views.of_lists("shelf", folder, SHELF)
