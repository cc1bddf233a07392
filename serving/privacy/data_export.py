"""Data export of one customer: everything that the shop stores about them, their features included."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from customers.people import lookup
from customers.privacy import data_export
from customers.shop.settings import Shop
from features.store.feature_store import FeatureStore


def export_customer(
    shop: Shop, store: FeatureStore, customer_id: str, *, store_lock: AbstractContextManager[Any] | None = None
) -> dict[str, Any] | None:
    """The export of customers.privacy.data_export with `features` (name -> number or list); None for an unknown id.

    `store_lock` is held while the feature store is read, for processes whose threads share its one connection.
    """
    document = data_export.export_customer(shop, customer_id)
    key = lookup.find_keys(shop, [customer_id]).get(customer_id)
    if document is None or key is None:
        return None
    with store_lock or nullcontext():
        features = store.customer_features(key)
    return {**document, "features": {name: _to_json_value(value) for name, value in features.items()}}


def _to_json_value(value: Any) -> Any:
    """A feature value as JSON holds it; None where it is missing."""
    if isinstance(value, np.ndarray):
        return [_to_json_value(each) for each in value.tolist()]
    return None if value is None or (isinstance(value, float) and not np.isfinite(value)) else value
