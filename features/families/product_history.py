"""Product history features: how often, how regularly and how recently a customer buys each product."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features.engine import expressions
from features.engine.ledger_lines import MONEY_STEPS
from features.families.stored_values import MAX_PRODUCTS, PRODUCT_LIST_TYPES

if TYPE_CHECKING:
    from feast import FeatureView

HALF_LIVES = (28, 56, 84, 120)


def product_days(bought: ir.Table, timezone: str) -> ir.Table:
    """One row per customer, product and day: worth, and gap_days since the previous day with that product."""
    days = daily_totals(bought.mutate(day=expressions.local_day_number(bought.sold_at, timezone)))
    before = ibis.window(group_by=["customer_key", "product_key"], order_by="day")
    return days.mutate(gap_days=days.day - days.day.lag().over(before))


def daily_totals(dated: ir.Table, *extra_keys: str) -> ir.Table:
    """Amount paid (worth), in ten-thousandths, per customer, product, day and extra key."""
    paid = expressions.to_whole_steps(expressions.sum_or_zero(dated.amount), MONEY_STEPS)
    return dated.group_by("customer_key", "product_key", "day", *extra_keys).aggregate(worth=paid)


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """Aggregates of one customer and product over the product-days before the cutoff, by column name."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    return named | {f"weight_{h}d": weight(history, h) for h in HALF_LIVES}


def times(history: ir.Table) -> ir.Value:
    """Number of days with a purchase."""
    return history.count()


def recency_days(history: ir.Table) -> ir.Value:
    """Local days since the last purchase."""
    return history.age_days.min()


def first_days(history: ir.Table) -> ir.Value:
    """Local days since the first purchase."""
    return history.age_days.max()


def gap_mean_days(history: ir.Table) -> ir.Value:
    """Mean gap in days; NULL after a single purchase day."""
    return expressions.ratio(first_days(history) - recency_days(history), times(history) - 1)


def gap_cv(history: ir.Table) -> ir.Value:
    """Coefficient of variation of the gaps: 0 is regular, 1 is a Poisson process; NULL with fewer than two gaps."""
    gaps = times(history) - 1
    spread = expressions.ratio((history.gap_days.cast("float64") ** 2).sum(), gaps) - gap_mean_days(history) ** 2
    return ibis.cases((gaps >= 2, expressions.ratio(ibis.greatest(spread, 0.0).sqrt(), gap_mean_days(history))))


def spend(history: ir.Table) -> ir.Value:
    """Total amount paid."""
    return history.worth.sum() / MONEY_STEPS


def weight(history: ir.Table, half_life_days: int) -> ir.Value:
    """Purchase days with exponential decay: each counts half for every half_life_days of age."""
    return expressions.decay_weight(history.age_days, half_life_days).sum() / expressions.WEIGHT_STEPS


FEATURES = (times, recency_days, first_days, gap_mean_days, gap_cv, spend)


def list_columns(history: ir.Table) -> dict[str, ir.Value]:
    """The aggregates that product lists are built from, by column name."""
    return {"times": times(history), "recency_days": recency_days(history), "first_days": first_days(history)} | {
        f"weight_{h}d": weight(history, h) for h in HALF_LIVES
    }


def product_lists(pairs: ir.Table) -> ir.Table:
    """One row per customer and cutoff: aligned lists over products, by falling weight_84d, then by product_key.

    Of a customer with more than MAX_PRODUCTS products, the most recently bought are used.
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
    """The Feast view of product history; its lists are in folder/shelf/part.parquet."""
    from features.families import feast_views

    return feast_views.list_view("shelf", folder, PRODUCT_LIST_TYPES)
