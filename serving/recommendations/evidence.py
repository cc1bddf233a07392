"""Because: the few figures of a customer's own that say why each product is on their list.

They are kept beside the list and put into words by `customers.reports.recommendation_reasons`, which says what they mean.
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
#: What is noted of each product, and what is read of a shelf; an old shelf may lack some.
EVIDENCE_COLUMNS = ("because", "days", "since")
HISTORY_COLUMNS = ("times", "last_days", "first_days")
#: What was bought longer ago is no reason to buy what goes with it.
RECENT_DAYS = 90


def add_evidence(
    ranked: pd.DataFrame,
    history: pd.DataFrame,
    co_purchase_index: RelatedProducts | None,
    *,
    hidden: Collection[int] = (),
    consenting: Collection[int] = (),
) -> pd.DataFrame:
    """Ranked lists with why each product is there: columns `because`, `days` and `since`, -1 for nothing.

    Of what was bought before: on how many days, and how long ago the last and the first of them are. Of what is new:
    the product_key and days of what goes with it best among what they bought lately, `hidden` products left out but
    for the customers in `sees`.
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
    """What is kept of each product's grounds: as many numbers as there are, or the `words` of a list that has some."""
    texts = ranked["words"].tolist() if "words" in ranked else [None] * len(ranked)
    for text, first, days, since in zip(texts, *(ranked[name].tolist() for name in EVIDENCE_COLUMNS), strict=True):
        if text is not None:
            yield [text]
        elif first < 0:
            yield []
        else:
            yield [first, days] if since < 0 else [first, days, since]


def reason_texts(shop: Shop, ranked: pd.DataFrame) -> list[str]:
    """The reasons of ranked products in words."""
    entries = zip(ranked["customer_key"].tolist(), ranked["source"].tolist(), iter_evidence(ranked), strict=True)
    return recommendation_reasons.product_reasons(shop, entries)


def flatten_history(
    history: pd.DataFrame, *, hidden: Collection[int] = (), consenting: Collection[int] = ()
) -> pd.DataFrame:
    """The shelves laid flat: row, customer_key, product_key and the figures, NaN where a shelf has none.

    Without `hidden` products, but for the customers in `sees`.
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
    """Where each row's product stands among the shelves, -1 for nowhere."""
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
