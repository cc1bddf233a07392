"""Frames of stored scores, with decoded details, customer ids and fixed columns."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import pandas as pd

from customers.people import lookup
from customers.privacy import consents
from customers.scores import score_details, score_store
from customers.shop.settings import Shop


def load_score_details(
    shop: Shop,
    model: str,
    as_of: datetime | None = None,
    *,
    include_online: bool = False,
    keys: Collection[int] | None = None,
    key_range: range | None = None,
) -> pd.DataFrame:
    """The newest finished run of a model, or that of a given as_of: columns customer_key, value, as_of, detail.

    `detail` is decoded by `score_details`. include_online: replace rows by scores stored online since
    that run. keys: read only these customers' rows; above `score_store.FILTER_UP_TO` keys, rows of others are included.
    key_range: of a stored run, only customers with a customer_key in this range.
    """
    frame = (
        score_store.load_latest_scores(shop, model, keys=keys)
        if include_online
        else score_store.load_run_scores(shop, model, as_of, keys=keys, key_range=key_range)
    )
    if not include_online:
        frame["as_of"] = pd.Series(frame.attrs.get("as_of"), frame.index, "datetime64[us, UTC]")
    decode = score_details.DECODERS[model]
    frame["detail"] = [decode(detail) for detail in frame["detail"]]
    return frame


def with_customer_ids(shop: Shop, rows: list[dict[str, Any]] | pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """The rows with column customer_id instead of customer_key, and these columns in their order and dtypes."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    if "customer_key" in frame:
        frame["customer_id"] = frame["customer_key"].map(lookup.find_ids(shop, frame["customer_key"].unique()))
    return frame.reindex(columns=list(columns)).astype(columns).reset_index(drop=True)


def without_disallowed_sensitive(shop: Shop, frame: pd.DataFrame, sensitive: pd.Series) -> pd.DataFrame:
    """Rows, by column customer_key, without sensitive ones of customers who do not consent; sensitive: (n,) flags."""
    if not sensitive.any():
        return frame
    allowed = consents.allowed_customers(shop, frame.loc[sensitive, "customer_key"].unique(), "profiling_sensitive")
    return frame[~sensitive | frame["customer_key"].isin(allowed)].reset_index(drop=True)
