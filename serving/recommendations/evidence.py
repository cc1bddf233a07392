"""Evidence: the few numbers of a customer's own history that explain why each product is on their list.

They are stored with the list; `customers.reports.recommendation_reasons` defines them and turns them into text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.reports import recommendation_reasons
from customers.shop.settings import Shop
from models.related_products.complements import RelatedProducts

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: The columns of the evidence, and the history columns that they are read from; an old history may lack some.
EVIDENCE_COLUMNS = ("evidence_key", "days", "since")
HISTORY_COLUMNS = ("times", "last_days", "first_days")
#: A purchase longer ago is no evidence for a product that goes with it.
RECENT_DAYS = 90


def add_evidence(
    ranked: pd.DataFrame,
    history: pd.DataFrame,
    co_purchase_index: RelatedProducts | None,
    *,
    hidden: Collection[int] = (),
    consenting: Collection[int] = (),
) -> pd.DataFrame:
    """The ranked lists with the evidence of each product: int columns evidence_key, days, since; -1 for none.

    For source "again": purchase days, and days since the last and since the first of them. For source "new": key of the
    product bought within RECENT_DAYS that it goes with best, and days since that purchase; `hidden` products count only
    for the customers in `consenting`.

    ranked: columns customer_key, product_key, source, a row per list entry. history: columns customer_key, product_keys
    and HISTORY_COLUMNS, a row per customer.
    """
    purchases, source = flatten_history(history), ranked["source"].to_numpy()
    evidence = np.full((len(ranked), len(EVIDENCE_COLUMNS)), -1, np.int64)
    history_rows = pd.Index(history["customer_key"]).get_indexer(pd.Index(ranked["customer_key"]))
    products = ranked["product_key"].to_numpy(np.int64)
    repeat_rows, new_rows = np.flatnonzero(source == "again"), np.flatnonzero(source == "new")
    _write_columns(
        evidence,
        repeat_rows,
        _find_purchases(purchases, history_rows[repeat_rows], products[repeat_rows]),
        purchases,
        HISTORY_COLUMNS,
    )
    if co_purchase_index is not None:
        recent = flatten_history(history, hidden=hidden, consenting=consenting) if hidden else purchases
        recent = recent[recent["last_days"] <= RECENT_DAYS]
        supporting = co_purchase_index.supporting_entries(
            history_rows[new_rows], products[new_rows], *(recent[name].to_numpy() for name in ("row", "product_key"))
        )
        _write_columns(evidence, new_rows, supporting, recent, ("product_key", "last_days"))
    return ranked.assign(**dict(zip(EVIDENCE_COLUMNS, evidence.T, strict=True)))


def iter_evidence(ranked: pd.DataFrame) -> Iterator[list[Any]]:
    """Yield the evidence to store of each entry: its numbers, or the text in the column words if there is one."""
    texts = ranked["words"].tolist() if "words" in ranked else [None] * len(ranked)
    for text, key, days, since in zip(texts, *(ranked[name].tolist() for name in EVIDENCE_COLUMNS), strict=True):
        if text is not None:
            yield [text]
        elif key < 0:
            yield []
        else:
            yield [key, days] if since < 0 else [key, days, since]


def reason_texts(shop: Shop, ranked: pd.DataFrame) -> list[str]:
    """The reason text of each row. ranked: columns customer_key, source, evidence_key, days, since, perhaps words."""
    entries = zip(ranked["customer_key"].tolist(), ranked["source"].tolist(), iter_evidence(ranked), strict=True)
    return recommendation_reasons.product_reasons(shop, entries)


def flatten_history(
    history: pd.DataFrame, *, hidden: Collection[int] = (), consenting: Collection[int] = ()
) -> pd.DataFrame:
    """The purchase histories with a row per customer and product.

    Columns: row (of the history), customer_key, product_key and HISTORY_COLUMNS, NaN where a history lacks one.
    Without the `hidden` products, except for the customers in `consenting`.
    """
    lists = history["product_keys"].to_numpy()
    filled_rows = np.flatnonzero(history["product_keys"].notna().to_numpy())
    sizes = np.array([len(lists[row]) for row in filled_rows], np.int64)
    rows = np.repeat(filled_rows, sizes)
    columns: dict[str, Any] = {"row": rows, "customer_key": history["customer_key"].to_numpy(np.int64)[rows]}
    columns["product_key"] = _concatenated(lists[filled_rows]).astype(np.int64)
    for name in HISTORY_COLUMNS:
        is_complete = name in history and all(each is not None for each in history[name].to_numpy()[filled_rows])
        columns[name] = (
            _concatenated(history[name].to_numpy()[filled_rows]) if is_complete else np.full(len(rows), np.nan)
        )
    purchases = pd.DataFrame(columns)
    if not hidden:
        return purchases
    is_visible = ~purchases["product_key"].isin(list(hidden)) | purchases["customer_key"].isin(list(consenting))
    return purchases[is_visible].reset_index(drop=True)


def _concatenated(lists: NDArray[Any]) -> Floats:
    return np.concatenate([np.empty(0), *lists])


def _find_purchases(purchases: pd.DataFrame, rows: Ints, products: Ints) -> Ints:
    """The index in purchases of each pair of history row and product, -1 where it was not bought."""
    width = 1 + max(purchases["product_key"].max() if len(purchases) else 0, products.max(initial=0))
    purchase_index = pd.Index(purchases["row"].to_numpy() * width + purchases["product_key"].to_numpy())
    return np.asarray(purchase_index.get_indexer(pd.Index(rows * width + products)), np.int64)


def _write_columns(
    evidence: Ints, target_rows: Ints, source_rows: Ints, purchases: pd.DataFrame, names: Sequence[str]
) -> None:
    is_present = source_rows >= 0
    for column, name in enumerate(names):
        values = purchases[name].to_numpy(np.float64)[source_rows[is_present]]
        evidence[target_rows[is_present], column] = np.where(np.isnan(values), -1, values).astype(np.int64)
