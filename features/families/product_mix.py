"""Taste: what a customer's baskets are made of, how varied they are, and how much of them is an old habit."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features.engine import expressions, ledger_lines
from features.engine.ledger_lines import GROUPINGS, MONEY_STEPS
from features.families import recency_frequency

if TYPE_CHECKING:
    from feast import FeatureView

NEW_WINDOWS = (28, 90)
ENTROPY_STEPS = 2.0**30  # n log n is counted in these parts


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """What a customer goes for, over the days seen from a moment (see snapshot.seen)."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    new_products = {f"products_new_{w}d": products_new(history, w) for w in NEW_WINDOWS}
    variety = {f"{grouping}_count": group_count(history, grouping) for grouping in GROUPINGS}
    top = {f"{grouping}_top_share": group_top_share(history, grouping) for grouping in GROUPINGS}
    evenness = {f"{grouping}_entropy": group_entropy(history, grouping) for grouping in GROUPINGS}
    return named | new_products | variety | top | evenness


def products_count(history: ir.Table) -> ir.Value:
    """How many different products they ever bought."""
    return expressions.sum_or_zero(history.new_products)


def products_per_day(history: ir.Table) -> ir.Value:
    """Different products that a purchase day has added to what they know."""
    return expressions.ratio(products_count(history), history.visit.sum())


def repeat_share(history: ir.Table) -> ir.Value:
    """Share of lines that were not the first of their product for this customer."""
    return expressions.ratio(history.bought_lines.sum() - products_count(history), history.bought_lines.sum())


def repeat_share_28d(history: ir.Table) -> ir.Value:
    """The same, of the last 28 days: falling, they stop coming for what they used to buy here."""
    recent = recency_frequency.is_age_between(history, 0, 28)
    recent_lines = expressions.sum_or_zero(history.bought_lines, recent)
    return expressions.ratio(recent_lines - expressions.sum_or_zero(history.new_products, recent), recent_lines)


def products_new(history: ir.Table, days: int) -> ir.Value:
    """Products first bought within the last days."""
    return expressions.sum_or_zero(history.new_products, recency_frequency.is_age_between(history, 0, days))


def group_count(history: ir.Table, grouping: str) -> ir.Value:
    """How many departments, categories, brands or stores they ever bought from."""
    return expressions.sum_or_zero(history[f"{grouping}_new"])


def group_top_share(history: ir.Table, grouping: str) -> ir.Value:
    """Share of their spend that goes to the one they favour most."""
    return expressions.ratio(history[f"{grouping}_top"].max(), history[f"{grouping}_worth"].sum())


def group_entropy(history: ir.Table, grouping: str) -> ir.Value:
    """How evenly their spend is spread, in nats: log N - (sum of n log n) / N; 0 is a single one."""
    worth = history[f"{grouping}_worth"].sum() / MONEY_STEPS
    even = worth.nullif(0).ln() - expressions.ratio(history[f"{grouping}_nlogn"].sum() / ENTROPY_STEPS, worth)
    return ibis.greatest(even, 0.0)


def first_purchases(lines: ir.Table, timezone: str) -> ir.Table:
    """When products were first bought: customer_key, sold_at, day, new_products."""
    pairs = lines.group_by("customer_key", "product_key").aggregate(sold_at=lines.sold_at.min())
    new = pairs.group_by("customer_key", "sold_at").aggregate(new_products=pairs.count().cast("float64"))
    return new.mutate(day=expressions.local_day_number(new.sold_at, timezone))


def grouping_spend(purchases: ir.Table, grouping: str, timezone: str) -> ir.Table:
    """How spend on a kind piles up: customer_key, sold_at, day, and what each moment adds.

    Counts, shares and entropy of a customer's departments as of any moment need the total of each department
    at that moment. Instead of counting those totals once for every moment, each purchase carries what it adds
    to the count and to the sum of n log n, and what its department then amounts to. As totals only grow
    (returns are left aside), a sum or a maximum over the purchases before a moment is exact, for any number
    of moments.
    """
    worth = expressions.to_whole_steps(expressions.sum_or_zero(purchases.amount), MONEY_STEPS)
    order_spend = purchases.group_by("customer_key", "order_key", "sold_at", grouping).aggregate(worth=worth)
    so_far = ibis.window(
        group_by=["customer_key", grouping], order_by=["sold_at", "order_key"], preceding=None, following=0
    )
    running = order_spend.mutate(after=order_spend.worth.sum().over(so_far), first=ibis.row_number().over(so_far) == 0)
    added = _n_log_n(running.after) - _n_log_n(running.after - running.worth)
    running = running.mutate(added=added)
    added_by_purchase = running.group_by("customer_key", "sold_at").aggregate(
        **{
            f"{grouping}_new": running.first.sum().cast("float64"),
            f"{grouping}_worth": running.worth.sum(),
            f"{grouping}_nlogn": running.added.sum(),
            f"{grouping}_top": running.after.max(),
        }
    )
    return added_by_purchase.mutate(day=expressions.local_day_number(added_by_purchase.sold_at, timezone))


def _n_log_n(amount: ir.NumericColumn) -> ir.Value:
    worth = amount / MONEY_STEPS
    return ibis.coalesce(expressions.to_whole_steps(worth * worth.nullif(0).ln(), ENTROPY_STEPS), 0.0)


FEATURES = (products_count, products_per_day, repeat_share, repeat_share_28d)


def view(folder: Path) -> "FeatureView":
    """What Feast is told about this family; the numbers lie in folder/taste/part.parquet."""
    from features.families import feast_views

    return feast_views.numeric_view("taste", folder, columns(ledger_lines.VISIBLE_DAYS))
