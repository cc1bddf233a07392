"""Shown: everything that the shop holds of a person, the figures that were computed of them included."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from customers import privacy, profiles
from customers.shop import Shop
from features.store import Store


def everything(
    shop: Shop, store: Store, customer_id: str, *, turn: AbstractContextManager[Any] | None = None
) -> dict[str, Any] | None:
    """What the customers' floor discloses, with `features`: name -> number or list; None for an unknown id.

    `turn` is held while the store is read, for whoever shares its one connection.
    """
    found = privacy.export(shop, customer_id)
    key = profiles.keys_of(shop, [customer_id]).get(customer_id)
    if found is None or key is None:
        return None
    with turn or nullcontext():
        figures = store.held(key)
    return {**found, "features": {name: _plain(value) for name, value in figures.items()}}


def _plain(value: Any) -> Any:
    """A figure as JSON holds it; what is not known is None."""
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value.tolist()]
    return None if value is None or (isinstance(value, float) and not np.isfinite(value)) else value
