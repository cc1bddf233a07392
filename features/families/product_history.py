"""Staples: how often, how regularly and how lately a customer buys each product; and the shelf of all."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features.engine import expressions
from features.engine.ledger_lines import MONEY_STEPS

if TYPE_CHECKING:
    from feast import FeatureView

HALF_LIVES = (28, 56, 84, 120)
MAX_PRODUCTS = 1_000  # products; serving reads a whole shelf at once, and nobody is offered their 1,001st

PRODUCT_LIST_TYPES = {
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
    days = daily_totals(bought.mutate(day=expressions.local_day_number(bought.sold_at, timezone)))
    before = ibis.window(group_by=["customer_key", "product_key"], order_by="day")
    return days.mutate(gap_days=days.day - days.day.lag().over(before))


def daily_totals(dated: ir.Table, *extra_keys: str) -> ir.Table:
    """What each customer paid for each product on each day, in ten-thousandths; see engine.whole."""
    paid = expressions.to_whole_steps(expressions.sum_or_zero(dated.amount), MONEY_STEPS)
    return dated.group_by("customer_key", "product_key", "day", *extra_keys).aggregate(worth=paid)


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """What a product is to a customer, over the product-days seen from a moment."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    return named | {f"weight_{h}d": weight(history, h) for h in HALF_LIVES}


def times(history: ir.Table) -> ir.Value:
    """Days on which they bought it."""
    return history.count()


def recency_days(history: ir.Table) -> ir.Value:
    """Days since they last bought it, by the shop's calendar."""
    return history.age_days.min()


def first_days(history: ir.Table) -> ir.Value:
    """Days since they first bought it."""
    return history.age_days.max()


def gap_mean_days(history: ir.Table) -> ir.Value:
    """Mean days between buying it and buying it again; NULL if bought once."""
    return expressions.ratio(first_days(history) - recency_days(history), times(history) - 1)


def gap_cv(history: ir.Table) -> ir.Value:
    """How irregular those gaps are: 0 is a clock, 1 is chance; NULL with fewer than two gaps."""
    gaps = times(history) - 1
    spread = expressions.ratio((history.gap_days.cast("float64") ** 2).sum(), gaps) - gap_mean_days(history) ** 2
    return ibis.cases((gaps >= 2, expressions.ratio(ibis.greatest(spread, 0.0).sqrt(), gap_mean_days(history))))


def spend(history: ir.Table) -> ir.Value:
    """What they ever paid for it."""
    return history.worth.sum() / MONEY_STEPS


def weight(history: ir.Table, half_life_days: int) -> ir.Value:
    """Days of purchase, each counted half for every half_life_days it lies back."""
    return expressions.decay_weight(history.age_days, half_life_days).sum() / expressions.WEIGHT_STEPS


FEATURES = (times, recency_days, first_days, gap_mean_days, gap_cv, spend)


def list_columns(history: ir.Table) -> dict[str, ir.Value]:
    """The columns that a shelf is made of."""
    return {"times": times(history), "recency_days": recency_days(history), "first_days": first_days(history)} | {
        f"weight_{h}d": weight(history, h) for h in HALF_LIVES
    }


def product_lists(pairs: ir.Table) -> ir.Table:
    """One row for a customer and a moment: aligned lists over the products they bought, heaviest first.

    Heaviest by weight_84d, then by product_key. Of a customer with more than LONGEST_SHELF products, the most
    lately bought are kept.
    """
    weights = {f"weights_{h}d": pairs[f"weight_{h}d"].cast("float32") for h in HALF_LIVES}
    return expressions.aggregate_lists(
        pairs,
        {
            "product_keys": pairs.product_key,
            **weights,
            "times": pairs.times,
            "last_days": pairs.recency_days,
            "first_days": pairs.first_days,
        },
        recency_order=[pairs.recency_days, -pairs.weight_84d, pairs.product_key],
        list_order=[-pairs.weight_84d, pairs.product_key],
        max_length=MAX_PRODUCTS,
    )


def view(folder: Path) -> "FeatureView":
    """What Feast is told about the shelf; the lists lie in folder/shelf/part.parquet."""
    from features.families import feast_views

    return feast_views.list_view("shelf", folder, PRODUCT_LIST_TYPES)
