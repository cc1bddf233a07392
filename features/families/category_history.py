"""Category history features: how often, how regularly and how recently a customer buys each category."""

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
MAX_CATEGORIES = 500  # per customer

#: Numbers of one customer and category: the name of the list, and of the column in `columns`.
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
#: Numbers that compare one category with the customer's others, or with its own gaps.
DERIVED_NUMBERS = ("overdue_ratio", "overdue_max_ratio", "times_rate", "weight_share", "place", "categories_count")
COLUMNS = (*(f"need_{name}" for name in LIST_NUMBERS.values()), *(f"need_{name}" for name in DERIVED_NUMBERS))


def category_days(dated: ir.Table) -> ir.Table:
    """One row per customer, category and day: worth, pieces, and gap_days since the previous day."""
    days = daily_totals(dated)
    before = ibis.window(group_by=["customer_key", "category"], order_by="day")
    return days.mutate(gap_days=days.day - days.day.lag().over(before))


def categorised_lines(bought: ir.Table, products: ir.Table, timezone: str) -> ir.Table:
    """Purchased lines with category and local day; lines of products without a category are dropped."""
    with_category = products.select("product_key", category=products.category.nullif("")).filter(
        lambda t: t.category.notnull()
    )
    joined = bought.join(with_category, "product_key")
    return joined.select(
        "customer_key",
        "category",
        "sold_at",
        "amount",
        "quantity",
        day=expressions.local_day_number(joined.sold_at, timezone),
    )


def daily_totals(dated: ir.Table, *extra_keys: str) -> ir.Table:
    """Amount paid (worth) and pieces, in ten-thousandths, per customer, category, day and extra key."""
    return dated.group_by("customer_key", "category", "day", *extra_keys).aggregate(
        worth=expressions.to_whole_steps(expressions.sum_or_zero(dated.amount), MONEY_STEPS),
        pieces=expressions.to_whole_steps(dated.quantity.sum(), MONEY_STEPS),
    )


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """Aggregates of one customer and category over the category-days before the cutoff, by column name.

    Recency, gaps and weights are defined as for products.
    """
    named = {feature.__name__: feature(history) for feature in FEATURES}
    named |= {f"times_{w}d": (history.age_days <= w).sum() for w in WINDOWS}
    return named | {f"weight_{h}d": product_history.weight(history, h) for h in HALF_LIVES}


def gap_median_days(history: ir.Table) -> ir.Value:
    """Median gap in days."""
    return history.gap_days.median()


def gap_max_days(history: ir.Table) -> ir.Value:
    """Longest gap in days."""
    return history.gap_days.max()


def gap_last_days(history: ir.Table) -> ir.Value:
    """Days between the last two purchase days."""
    return history.gap_days.argmax(history.day)


def spend_last(history: ir.Table) -> ir.Value:
    """Amount paid on the last purchase day."""
    return history.worth.argmax(history.day) / MONEY_STEPS


def pieces_per_day(history: ir.Table) -> ir.Value:
    """Mean number of pieces per purchase day."""
    return expressions.ratio(history.pieces.sum() / MONEY_STEPS, product_history.times(history))


def pieces_last(history: ir.Table) -> ir.Value:
    """Pieces bought on the last purchase day: a larger pack lasts longer."""
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
    """One row per customer and cutoff: aligned lists over categories, by falling weight_45d, then by name.

    Of a customer with more than MAX_CATEGORIES categories, the most recently bought are used.
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
    """One row per customer and category from one row per customer: customer_key, as_of, category, COLUMNS (float64).

    `frame` has the columns customer_key, as_of (or event_timestamp) and this family's lists; its other columns, all of
    numbers, are repeated in each row, after COLUMNS. Rows keep the order of frame, categories that of the lists; a
    customer without any has no row.
    """
    frame = frame.rename(columns={"event_timestamp": "as_of"})
    counts = np.array([len(each) if _is_list(each) else 0 for each in frame["categories"]], dtype="int64")
    rows = np.repeat(np.arange(len(frame)), counts)
    numbers = {f"need_{column}": _concatenate(frame[f"need_{name}"]) for name, column in LIST_NUMBERS.items()}
    numbers |= {f"need_{name}": column for name, column in _derived_columns(numbers, rows, counts).items()}
    others = frame.drop(columns=[*CATEGORY_LIST_TYPES, "customer_key", "as_of"])
    # One block, filled in place: a concatenation would hold the largest frame of a nightly run three times.
    block = np.empty((len(COLUMNS) + others.shape[1], len(rows)))
    for position, name in enumerate(COLUMNS):
        block[position] = numbers.pop(name)
    for position, name in enumerate(others.columns, len(COLUMNS)):
        np.take(others[name].to_numpy("float64"), rows, out=block[position])
    exploded = pd.DataFrame(block.T, columns=[*COLUMNS, *others.columns], copy=False)
    exploded.insert(0, "category", _concatenate(frame["categories"], "object"))
    exploded.insert(0, "as_of", frame["as_of"].take(rows).array)
    exploded.insert(0, "customer_key", frame["customer_key"].to_numpy()[rows])
    return exploded


def _derived_columns(numbers: dict[str, np.ndarray], rows: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """DERIVED_NUMBERS, (n_rows,) each, from a category's numbers and those of the customer's other categories."""
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
    """The Feast view of category history; its lists are in folder/needs/part.parquet."""
    from features.families import feast_views

    return feast_views.list_view("needs", folder, CATEGORY_LIST_TYPES)
