"""Product mix features: variety of baskets, share of repeat purchases, and spread of spend over groups of products."""

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
ENTROPY_STEPS = 2.0**30  # n log n is summed in units of 1 / ENTROPY_STEPS


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """Every product mix feature by name, over the days before the cutoff (see ledger_lines.VISIBLE_DAYS)."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    new_products = {f"products_new_{w}d": products_new(history, w) for w in NEW_WINDOWS}
    variety = {f"{grouping}_count": group_count(history, grouping) for grouping in GROUPINGS}
    top = {f"{grouping}_top_share": group_top_share(history, grouping) for grouping in GROUPINGS}
    evenness = {f"{grouping}_entropy": group_entropy(history, grouping) for grouping in GROUPINGS}
    return named | new_products | variety | top | evenness


def products_count(history: ir.Table) -> ir.Value:
    """Number of distinct products ever bought."""
    return expressions.sum_or_zero(history.new_products)


def products_per_day(history: ir.Table) -> ir.Value:
    """Distinct products ever bought, per purchase day."""
    return expressions.ratio(products_count(history), history.visit.sum())


def repeat_share(history: ir.Table) -> ir.Value:
    """Share of purchased lines that were not the customer's first of that product."""
    return expressions.ratio(history.bought_lines.sum() - products_count(history), history.bought_lines.sum())


def repeat_share_28d(history: ir.Table) -> ir.Value:
    """Repeat share over the last 28 days; when it falls, the customer buys fewer of their usual products here."""
    recent = recency_frequency.is_age_between(history, 0, 28)
    recent_lines = expressions.sum_or_zero(history.bought_lines, recent)
    return expressions.ratio(recent_lines - expressions.sum_or_zero(history.new_products, recent), recent_lines)


def products_new(history: ir.Table, days: int) -> ir.Value:
    """Number of products first bought in the last `days` days."""
    return expressions.sum_or_zero(history.new_products, recency_frequency.is_age_between(history, 0, days))


def group_count(history: ir.Table, grouping: str) -> ir.Value:
    """Number of distinct departments, categories, brands or stores ever bought from."""
    return expressions.sum_or_zero(history[f"{grouping}_new"])


def group_top_share(history: ir.Table, grouping: str) -> ir.Value:
    """Share of spend in the customer's largest group."""
    return expressions.ratio(history[f"{grouping}_top"].max(), history[f"{grouping}_worth"].sum())


def group_entropy(history: ir.Table, grouping: str) -> ir.Value:
    """Entropy of spend over groups, in nats: log N - (sum of n log n) / N; 0 for a single group."""
    worth = history[f"{grouping}_worth"].sum() / MONEY_STEPS
    entropy = worth.nullif(0).ln() - expressions.ratio(history[f"{grouping}_nlogn"].sum() / ENTROPY_STEPS, worth)
    return ibis.greatest(entropy, 0.0)


def first_purchases(lines: ir.Table, timezone: str) -> ir.Table:
    """Products bought for the first time, one row per customer and time: customer_key, sold_at, day, new_products."""
    pairs = lines.group_by("customer_key", "product_key").aggregate(sold_at=lines.sold_at.min())
    counts = pairs.group_by("customer_key", "sold_at").aggregate(new_products=pairs.count().cast("float64"))
    return counts.mutate(day=expressions.local_day_number(counts.sold_at, timezone))


def grouping_spend(purchases: ir.Table, grouping: str, timezone: str) -> ir.Table:
    """What each purchase adds to spend by group, one row per customer and time of purchase.

    Columns customer_key, sold_at, day, and GROUPING_new, GROUPING_worth, GROUPING_nlogn, GROUPING_top. Count, shares
    and entropy of a customer's departments as of any cutoff need the total of each department at that cutoff. Instead
    of computing those totals for every cutoff, each purchase carries what it adds to the count and to the sum of n log
    n, and the total of its department after it. As totals only grow (returns are left out), a sum or a maximum over the
    purchases before a cutoff is exact, for any number of cutoffs.
    """
    order_spend = _order_spend(purchases, grouping)
    until_now = ibis.window(
        group_by=["customer_key", grouping], order_by=["sold_at", "order_key"], preceding=None, following=0
    )
    running = order_spend.mutate(
        after=order_spend.worth.sum().over(until_now), first=ibis.row_number().over(until_now) == 0
    )
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


def grouping_totals(purchases: ir.Table, grouping: str, timezone: str) -> ir.Table:
    """What all purchases together add to spend by group, one row per customer, at the time of the last purchase.

    Columns as of `grouping_spend`, to whose sums and maximum these are equal: for a single cutoff after all purchases,
    where nothing needs to run over them.
    """
    order_spend = _order_spend(purchases, grouping)
    groups = order_spend.group_by("customer_key", grouping).aggregate(
        sold_at=order_spend.sold_at.max(), total=order_spend.worth.sum()
    )
    groups = groups.mutate(added=_n_log_n(groups.total))
    totals = groups.group_by("customer_key").aggregate(
        sold_at=groups.sold_at.max(),
        **{
            f"{grouping}_new": groups.count().cast("float64"),
            f"{grouping}_worth": groups.total.sum(),
            f"{grouping}_nlogn": groups.added.sum(),
            f"{grouping}_top": groups.total.max(),
        },
    )
    return totals.mutate(day=expressions.local_day_number(totals.sold_at, timezone))


def _order_spend(purchases: ir.Table, grouping: str) -> ir.Table:
    """Spend in whole steps, one row per customer, order and group: customer_key, order_key, sold_at, group, worth."""
    worth = expressions.to_whole_steps(expressions.sum_or_zero(purchases.amount), MONEY_STEPS)
    return purchases.group_by("customer_key", "order_key", "sold_at", grouping).aggregate(worth=worth)


def _n_log_n(amount: ir.NumericColumn) -> ir.Value:
    worth = amount / MONEY_STEPS
    return ibis.coalesce(expressions.to_whole_steps(worth * worth.nullif(0).ln(), ENTROPY_STEPS), 0.0)


FEATURES = (products_count, products_per_day, repeat_share, repeat_share_28d)


def view(folder: Path) -> "FeatureView":
    """The Feast view of product mix; its numbers are in folder/taste/part.parquet."""
    from features.families import feast_views

    return feast_views.numeric_view("taste", folder, columns(ledger_lines.VISIBLE_DAYS))
