"""Needs: how often, how regularly and how lately a customer buys of each category, to see when they run out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from features import engine, staples
from features.lines import MONEY

if TYPE_CHECKING:
    from feast import FeatureView

HALF_LIVES = (14, 45, 120)
WINDOWS = (28, 90, 180)
LONGEST_LIST = 500  # categories

#: A customer's numbers for one category: the name of its list, and of the number in `pairs`.
NUMBERS = {
    "times": "times",
    "last_days": "recency_days",
    "first_days": "first_days",
    "gap_means": "gap_mean_days",
    "gap_cvs": "gap_cv",
    "gap_medians": "gap_median_days",
    "gap_maxima": "gap_max_days",
    "gap_lasts": "gap_last_days",
    "spends": "spend",
    "spends_last": "spend_last",
    "pieces_day": "pieces_per_day",
    "pieces_last": "pieces_last",
    **{f"times_{w}d": f"times_{w}d" for w in WINDOWS},
    **{f"weights_{h}d": f"weight_{h}d" for h in HALF_LIVES},
}
LISTS = {"categories": "String", **{f"need_{name}": "Float64" for name in NUMBERS}}
#: Numbers of `pairs` that say how one category stands among the customer's others, or against itself.
MADE = ("overdue_ratio", "overdue_max_ratio", "times_rate", "weight_share", "place", "categories_count")
COLUMNS = (*(f"need_{name}" for name in NUMBERS.values()), *(f"need_{name}" for name in MADE))


def category_days(dated: ir.Table) -> ir.Table:
    """One row for a customer, a category and a day: worth, pieces, and the gap to the day before."""
    days = worth(dated)
    before = ibis.window(group_by=["customer_key", "category"], order_by="day")
    return days.mutate(gap_days=days.day - days.day.lag().over(before))


def dated(bought: ir.Table, products: ir.Table, timezone: str) -> ir.Table:
    """Bought lines with their category and day; a product without a category is no need."""
    named = products.select("product_key", category=products.category.nullif("")).filter(lambda t: t.category.notnull())
    joined = bought.join(named, "product_key")
    return joined.select(
        "customer_key", "category", "sold_at", "amount", "quantity", day=engine.day_of(joined.sold_at, timezone)
    )


def worth(dated: ir.Table, *also: str) -> ir.Table:
    """What each customer paid for each category on each day, and how many pieces, in ten-thousandths."""
    return dated.group_by("customer_key", "category", "day", *also).aggregate(
        worth=engine.whole(engine.total(dated.amount), MONEY), pieces=engine.whole(dated.quantity.sum(), MONEY)
    )


def columns(seen: ir.Table) -> dict[str, ir.Value]:
    """What a category is to a customer, over the category-days seen from a moment; the rhythm is as a product's."""
    named = {feature.__name__: feature(seen) for feature in FEATURES}
    named |= {f"times_{w}d": (seen.age_days <= w).sum() for w in WINDOWS}
    return named | {f"weight_{h}d": staples.weight(seen, h) for h in HALF_LIVES}


def gap_median_days(seen: ir.Table) -> ir.Value:
    """The gap that half of their gaps exceed."""
    return seen.gap_days.median()


def gap_max_days(seen: ir.Table) -> ir.Value:
    """The longest they ever did without."""
    return seen.gap_days.max()


def gap_last_days(seen: ir.Table) -> ir.Value:
    """Days between the last two times."""
    return seen.gap_days.argmax(seen.day)


def spend_last(seen: ir.Table) -> ir.Value:
    """What they paid for it the last time."""
    return seen.worth.argmax(seen.day) / MONEY


def pieces_per_day(seen: ir.Table) -> ir.Value:
    """How much of it they take at a time."""
    return engine.ratio(seen.pieces.sum() / MONEY, staples.times(seen))


def pieces_last(seen: ir.Table) -> ir.Value:
    """How much of it they took the last time: a larger pack lasts longer."""
    return seen.pieces.argmax(seen.day) / MONEY


FEATURES = (
    staples.times,
    staples.recency_days,
    staples.first_days,
    staples.gap_mean_days,
    staples.gap_cv,
    gap_median_days,
    gap_max_days,
    gap_last_days,
    staples.spend,
    spend_last,
    pieces_per_day,
    pieces_last,
)


def lists(pairs: ir.Table) -> ir.Table:
    """One row for a customer and a moment: aligned lists over their categories, heaviest first.

    Heaviest by the weight of 45 days, then by name. Of a customer with more than LONGEST_LIST categories, the
    most lately bought are kept.
    """
    numbers = {f"need_{name}": pairs[column].cast("float64") for name, column in NUMBERS.items()}
    return engine.listed(
        pairs,
        {"categories": pairs.category} | numbers,
        lately=[pairs.recency_days, -pairs.weight_45d, pairs.category],
        heaviest=[-pairs.weight_45d, pairs.category],
        longest=LONGEST_LIST,
    )


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """A customer's lists laid out, one row a customer and category: customer_key, as_of, category, numbers.

    frame has customer_key, as_of (or event_timestamp) and the lists of this family, and whatever else of the
    customer: its other columns are repeated in each row. Rows keep the order of frame, categories that of the
    lists; a customer without any has none. The numbers are COLUMNS, as float64.
    """
    frame = frame.rename(columns={"event_timestamp": "as_of"})
    counts = np.array([len(each) if _known(each) else 0 for each in frame["categories"]], dtype="int64")
    rows = np.repeat(np.arange(len(frame)), counts)
    laid = {f"need_{column}": _flat(frame[f"need_{name}"]) for name, column in NUMBERS.items()}
    laid |= {f"need_{name}": column for name, column in _made(laid, rows, counts).items()}
    others = frame.drop(columns=[*LISTS, "customer_key", "as_of"])
    keys = frame[["customer_key", "as_of"]].take(rows).reset_index(drop=True)
    keys["category"] = _flat(frame["categories"], "object")
    floats = pd.DataFrame({name: laid[name] for name in COLUMNS})
    return pd.concat([keys, floats, others.take(rows).reset_index(drop=True)], axis=1)


def _made(laid: dict[str, np.ndarray], rows: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """What follows from the numbers of a category and from those beside it."""
    silence, weights = laid["need_recency_days"], laid["need_weight_45d"]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype("int64") if len(counts) else counts
    return {
        "overdue_ratio": _over(silence, laid["need_gap_median_days"]),
        "overdue_max_ratio": _over(silence, laid["need_gap_max_days"]),
        "times_rate": _over(laid["need_times"], laid["need_first_days"]),
        "weight_share": _over(weights, np.bincount(rows, weights, minlength=len(counts))[rows]),
        "place": (np.arange(len(rows)) - starts[rows] + 1).astype("float64"),
        "categories_count": counts[rows].astype("float64"),
    }


def _over(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.divide(part, of, out=np.full(len(part), np.nan), where=of > 0)


def _flat(column: pd.Series, kind: str = "float64") -> np.ndarray:
    filled = [each for each in column if _known(each)]
    return np.concatenate(filled).astype(kind) if filled else np.empty(0, kind)


def _known(each: Any) -> bool:
    return isinstance(each, np.ndarray | list)


def view(folder: Path) -> "FeatureView":
    """What Feast is told about the needs; the lists lie in folder/needs/part.parquet."""
    from features import views

    return views.of_lists("needs", folder, LISTS)
