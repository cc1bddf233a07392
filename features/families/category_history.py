"""Needs: how often, how regularly and how lately a customer buys of each category, to see when they run out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from features.engine import expressions
from features.engine.ledger_lines import MONEY_STEPS
from features.families import product_history

if TYPE_CHECKING:
    from feast import FeatureView

HALF_LIVES = (14, 45, 120)
WINDOWS = (28, 90, 180)
MAX_CATEGORIES = 500  # categories

#: A customer's numbers for one category: the name of its list, and of the number in `pairs`.
LIST_NUMBERS = {
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
CATEGORY_LIST_TYPES = {"categories": "String", **{f"need_{name}": "Float64" for name in LIST_NUMBERS}}
#: Numbers of `pairs` that say how one category stands among the customer's others, or against itself.
DERIVED_NUMBERS = ("overdue_ratio", "overdue_max_ratio", "times_rate", "weight_share", "place", "categories_count")
COLUMNS = (*(f"need_{name}" for name in LIST_NUMBERS.values()), *(f"need_{name}" for name in DERIVED_NUMBERS))


def category_days(dated: ir.Table) -> ir.Table:
    """One row for a customer, a category and a day: worth, pieces, and the gap to the day before."""
    days = daily_totals(dated)
    before = ibis.window(group_by=["customer_key", "category"], order_by="day")
    return days.mutate(gap_days=days.day - days.day.lag().over(before))


def categorised_lines(bought: ir.Table, products: ir.Table, timezone: str) -> ir.Table:
    """Bought lines with their category and day; a product without a category is no need."""
    named = products.select("product_key", category=products.category.nullif("")).filter(lambda t: t.category.notnull())
    joined = bought.join(named, "product_key")
    return joined.select(
        "customer_key",
        "category",
        "sold_at",
        "amount",
        "quantity",
        day=expressions.local_day_number(joined.sold_at, timezone),
    )


def daily_totals(dated: ir.Table, *extra_keys: str) -> ir.Table:
    """What each customer paid for each category on each day, and how many pieces, in ten-thousandths."""
    return dated.group_by("customer_key", "category", "day", *extra_keys).aggregate(
        worth=expressions.to_whole_steps(expressions.sum_or_zero(dated.amount), MONEY_STEPS),
        pieces=expressions.to_whole_steps(dated.quantity.sum(), MONEY_STEPS),
    )


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """What a category is to a customer, over the category-days seen from a moment; the rhythm is as a product's."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    named |= {f"times_{w}d": (history.age_days <= w).sum() for w in WINDOWS}
    return named | {f"weight_{h}d": product_history.weight(history, h) for h in HALF_LIVES}


def gap_median_days(history: ir.Table) -> ir.Value:
    """The gap that half of their gaps exceed."""
    return history.gap_days.median()


def gap_max_days(history: ir.Table) -> ir.Value:
    """The longest they ever did without."""
    return history.gap_days.max()


def gap_last_days(history: ir.Table) -> ir.Value:
    """Days between the last two times."""
    return history.gap_days.argmax(history.day)


def spend_last(history: ir.Table) -> ir.Value:
    """What they paid for it the last time."""
    return history.worth.argmax(history.day) / MONEY_STEPS


def pieces_per_day(history: ir.Table) -> ir.Value:
    """How much of it they take at a time."""
    return expressions.ratio(history.pieces.sum() / MONEY_STEPS, product_history.times(history))


def pieces_last(history: ir.Table) -> ir.Value:
    """How much of it they took the last time: a larger pack lasts longer."""
    return history.pieces.argmax(history.day) / MONEY_STEPS


FEATURES = (
    product_history.times,
    product_history.recency_days,
    product_history.first_days,
    product_history.gap_mean_days,
    product_history.gap_cv,
    gap_median_days,
    gap_max_days,
    gap_last_days,
    product_history.spend,
    spend_last,
    pieces_per_day,
    pieces_last,
)


def category_lists(pairs: ir.Table) -> ir.Table:
    """One row for a customer and a moment: aligned lists over their categories, heaviest first.

    Heaviest by the weight of 45 days, then by name. Of a customer with more than LONGEST_LIST categories, the
    most lately bought are kept.
    """
    numbers = {f"need_{name}": pairs[column].cast("float64") for name, column in LIST_NUMBERS.items()}
    return expressions.aggregate_lists(
        pairs,
        {"categories": pairs.category} | numbers,
        recency_order=[pairs.recency_days, -pairs.weight_45d, pairs.category],
        list_order=[-pairs.weight_45d, pairs.category],
        max_length=MAX_CATEGORIES,
    )


def explode_lists(frame: pd.DataFrame) -> pd.DataFrame:
    """A customer's lists laid out, one row a customer and category: customer_key, as_of, category, numbers.

    frame has customer_key, as_of (or event_timestamp) and the lists of this family, and whatever else of the
    customer: its other columns are repeated in each row. Rows keep the order of frame, categories that of the
    lists; a customer without any has none. The numbers are COLUMNS, as float64.
    """
    frame = frame.rename(columns={"event_timestamp": "as_of"})
    counts = np.array([len(each) if _is_list(each) else 0 for each in frame["categories"]], dtype="int64")
    rows = np.repeat(np.arange(len(frame)), counts)
    numbers = {f"need_{column}": _concatenate(frame[f"need_{name}"]) for name, column in LIST_NUMBERS.items()}
    numbers |= {f"need_{name}": column for name, column in _derived_columns(numbers, rows, counts).items()}
    others = frame.drop(columns=[*CATEGORY_LIST_TYPES, "customer_key", "as_of"])
    keys = frame[["customer_key", "as_of"]].take(rows).reset_index(drop=True)
    keys["category"] = _concatenate(frame["categories"], "object")
    floats = pd.DataFrame({name: numbers[name] for name in COLUMNS})
    return pd.concat([keys, floats, others.take(rows).reset_index(drop=True)], axis=1)


def _derived_columns(numbers: dict[str, np.ndarray], rows: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """What follows from the numbers of a category and from those beside it."""
    recency, weights = numbers["need_recency_days"], numbers["need_weight_45d"]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype("int64") if len(counts) else counts
    return {
        "overdue_ratio": _divide_or_nan(recency, numbers["need_gap_median_days"]),
        "overdue_max_ratio": _divide_or_nan(recency, numbers["need_gap_max_days"]),
        "times_rate": _divide_or_nan(numbers["need_times"], numbers["need_first_days"]),
        "weight_share": _divide_or_nan(weights, np.bincount(rows, weights, minlength=len(counts))[rows]),
        "place": (np.arange(len(rows)) - starts[rows] + 1).astype("float64"),
        "categories_count": counts[rows].astype("float64"),
    }


def _divide_or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _concatenate(column: pd.Series, dtype: str = "float64") -> np.ndarray:
    filled = [each for each in column if _is_list(each)]
    return np.concatenate(filled).astype(dtype) if filled else np.empty(0, dtype)


def _is_list(value: Any) -> bool:
    return isinstance(value, np.ndarray | list)


def view(folder: Path) -> "FeatureView":
    """What Feast is told about the needs; the lists lie in folder/needs/part.parquet."""
    from features.families import feast_views

    return feast_views.list_view("needs", folder, CATEGORY_LIST_TYPES)
