"""Taste: what a customer's baskets are made of, how varied they are, and how much of them is an old habit."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features import engine, lines, rhythm
from features.lines import KINDS, MONEY

if TYPE_CHECKING:
    from feast import FeatureView

NEW_WINDOWS = (28, 90)
FINEST = 2.0**30  # n log n is counted in these parts


def columns(seen: ir.Table) -> dict[str, ir.Value]:
    """What a customer goes for, over the days seen from a moment (see snapshot.seen)."""
    named = {feature.__name__: feature(seen) for feature in FEATURES}
    fresh = {f"products_new_{w}d": products_new(seen, w) for w in NEW_WINDOWS}
    variety = {f"{kind}_count": kind_count(seen, kind) for kind in KINDS}
    top = {f"{kind}_top_share": kind_top_share(seen, kind) for kind in KINDS}
    evenness = {f"{kind}_entropy": kind_entropy(seen, kind) for kind in KINDS}
    return named | fresh | variety | top | evenness


def products_count(seen: ir.Table) -> ir.Value:
    """How many different products they ever bought."""
    return engine.total(seen.new_products)


def products_per_day(seen: ir.Table) -> ir.Value:
    """Different products that a purchase day has added to what they know."""
    return engine.ratio(products_count(seen), seen.visit.sum())


def repeat_share(seen: ir.Table) -> ir.Value:
    """Share of lines that were not the first of their product for this customer."""
    return engine.ratio(seen.bought_lines.sum() - products_count(seen), seen.bought_lines.sum())


def repeat_share_28d(seen: ir.Table) -> ir.Value:
    """The same, of the last 28 days: falling, they stop coming for what they used to buy here."""
    recent = rhythm.aged(seen, 0, 28)
    lines = engine.total(seen.bought_lines, recent)
    return engine.ratio(lines - engine.total(seen.new_products, recent), lines)


def products_new(seen: ir.Table, days: int) -> ir.Value:
    """Products first bought within the last days."""
    return engine.total(seen.new_products, rhythm.aged(seen, 0, days))


def kind_count(seen: ir.Table, kind: str) -> ir.Value:
    """How many departments, categories, brands or stores they ever bought from."""
    return engine.total(seen[f"{kind}_new"])


def kind_top_share(seen: ir.Table, kind: str) -> ir.Value:
    """Share of their spend that goes to the one they favour most."""
    return engine.ratio(seen[f"{kind}_top"].max(), seen[f"{kind}_worth"].sum())


def kind_entropy(seen: ir.Table, kind: str) -> ir.Value:
    """How evenly their spend is spread, in nats: log N - (sum of n log n) / N; 0 is a single one."""
    worth = seen[f"{kind}_worth"].sum() / MONEY
    even = worth.nullif(0).ln() - engine.ratio(seen[f"{kind}_nlogn"].sum() / FINEST, worth)
    return ibis.greatest(even, 0.0)


def firsts(lines: ir.Table, timezone: str) -> ir.Table:
    """When products were first bought: customer_key, sold_at, day, new_products."""
    pairs = lines.group_by("customer_key", "product_key").aggregate(sold_at=lines.sold_at.min())
    new = pairs.group_by("customer_key", "sold_at").aggregate(new_products=pairs.count().cast("float64"))
    return new.mutate(day=engine.day_of(new.sold_at, timezone))


def habits(purchases: ir.Table, kind: str, timezone: str) -> ir.Table:
    """How spend on a kind piles up: customer_key, sold_at, day, and what each moment adds.

    Counts, shares and entropy of a customer's departments as of any moment need the total of each department
    at that moment. Instead of counting those totals once for every moment, each purchase carries what it adds
    to the count and to the sum of n log n, and what its department then amounts to. As totals only grow
    (returns are left aside), a sum or a maximum over the purchases before a moment is exact, for any number
    of moments.
    """
    worth = engine.whole(engine.total(purchases.amount), MONEY)
    bits = purchases.group_by("customer_key", "order_key", "sold_at", kind).aggregate(worth=worth)
    so_far = ibis.window(
        group_by=["customer_key", kind], order_by=["sold_at", "order_key"], preceding=None, following=0
    )
    piles = bits.mutate(after=bits.worth.sum().over(so_far), first=ibis.row_number().over(so_far) == 0)
    added = _nlogn(piles.after) - _nlogn(piles.after - piles.worth)
    piles = piles.mutate(added=added)
    grown = piles.group_by("customer_key", "sold_at").aggregate(
        **{
            f"{kind}_new": piles.first.sum().cast("float64"),
            f"{kind}_worth": piles.worth.sum(),
            f"{kind}_nlogn": piles.added.sum(),
            f"{kind}_top": piles.after.max(),
        }
    )
    return grown.mutate(day=engine.day_of(grown.sold_at, timezone))


def _nlogn(pile: ir.NumericColumn) -> ir.Value:
    worth = pile / MONEY
    return ibis.coalesce(engine.whole(worth * worth.nullif(0).ln(), FINEST), 0.0)


FEATURES = (products_count, products_per_day, repeat_share, repeat_share_28d)


def view(folder: Path) -> "FeatureView":
    """What Feast is told about this family; the numbers lie in folder/taste/part.parquet."""
    from features import views

    return views.of_numbers("taste", folder, columns(lines.SEEN))
