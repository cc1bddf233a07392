"""Frames: what the models said, with customers by their ids and under promised columns."""

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

import pandas as pd

from customers.people import lookup
from customers.privacy import consents
from customers.scores import score_store
from customers.shop.settings import Shop


def load_answers(
    shop: Shop,
    model: str,
    as_of: datetime | None = None,
    *,
    include_online: bool = False,
    keys: Collection[int] | None = None,
) -> pd.DataFrame:
    """The newest finished run of a model, or that of a moment, with each detail read, column `answer`.

    `live` lays over it what was told of single customers since; the moment of each row is in `as_of`. `keys` are the
    customers whose answers are wanted, where not everybody's are; of many, those of others may stand among them.
    """
    frame = (
        score_store.load_latest_scores(shop, model, keys=keys)
        if include_online
        else score_store.load_run_scores(shop, model, as_of, keys=keys)
    )
    if not include_online:
        frame["as_of"] = pd.Series(frame.attrs.get("as_of"), frame.index, "datetime64[us, UTC]")
    frame["answer"] = [json.loads(detail) for detail in frame.pop("detail")]
    return frame


def with_customer_ids(shop: Shop, rows: list[dict[str, Any]] | pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Customers by their ids, and the promised columns in their order and types."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    if "customer_key" in frame:
        frame["customer_id"] = frame["customer_key"].map(lookup.find_ids(shop, frame["customer_key"].unique()))
    return frame.reindex(columns=list(columns)).astype(columns).reset_index(drop=True)


def without_disallowed_sensitive(shop: Shop, frame: pd.DataFrame, sensitive: pd.Series) -> pd.DataFrame:
    """Without the rows that name something sensitive to a customer who has not allowed it."""
    if not sensitive.any():
        return frame
    allowed = consents.allowed_customers(shop, frame.loc[sensitive, "customer_key"].unique(), "profiling_sensitive")
    return frame[~sensitive | frame["customer_key"].isin(allowed)].reset_index(drop=True)
