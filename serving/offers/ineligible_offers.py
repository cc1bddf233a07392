"""Withheld: of the offers that run, those that may not be made to a customer, each with the first reason why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from customers import profiles, scores, validity
from customers.shop import Shop
from serving import desk, eligibility, offering, stall
from serving.eligibility import Table

WITHHELD = ("customer_id", "offer_id", "campaign_id", "reason")
#: So many customers are judged at a time, each beside every offer that runs.
_PORTION = 2_000


def table(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """A row a customer of whom the last night spoke and offer that may not be made to them, nearest to it first.

    It is judged when what that night found is judged: see `validity.standpoint`. Words repeat: they are categories.
    Customers are not, since a file of categories names them all, also those whose rows are gone.
    """
    at, before = validity.standpoint(shop, as_of)
    keys = scores.current(shop, "offers", as_of)["customer_key"].tolist()
    running = stall.of(shop).running(at)
    laid = stall.on_the_table(shop, running, before=before)
    parts = [_judged(shop, laid, keys[start : start + _PORTION], at, before) for start in range(0, len(keys), _PORTION)]
    found = pd.concat(parts) if parts else _judged(shop, laid, [], at, before)
    return _named(shop, laid, found)


def _judged(shop: Shop, laid: Table, keys: Sequence[int], at: datetime, before: datetime | None) -> pd.DataFrame:
    """customer_key, column (of the table) and code of what may not be made to these customers."""
    known = offering.standing(shop, keys, _baskets(shop, laid, keys, before), before=before)
    verdict = eligibility.judge(laid, known, now=at)
    rows, columns = np.nonzero(verdict)
    codes = verdict[rows, columns]
    order = np.lexsort((-laid.ends[columns], -codes, rows))
    customers = np.array(keys, np.int64)[rows]
    return pd.DataFrame({"customer_key": customers, "column": columns, "code": codes}).take(order)


def _baskets(shop: Shop, laid: Table, keys: Sequence[int], before: datetime | None) -> np.ndarray | None:
    """What their usual baskets are worth, where it matters; of a day gone by nobody has kept it."""
    if before is not None or not keys or not laid.offers["min_spend"].notna().any():
        return None
    return desk.of(shop).baskets(keys)


def _named(shop: Shop, laid: Table, found: pd.DataFrame) -> pd.DataFrame:
    """Codes in words and keys as ids, each text kept once."""
    names = profiles.ids_of(shop, found["customer_key"].unique().tolist())
    columns = found["column"].to_numpy(np.int64)
    campaigns, words = pd.factorize(laid.offers["campaign_id"])
    customers = pd.Categorical(found["customer_key"])
    columns_of = {
        "customer_id": customers.rename_categories(names).astype(object),
        "offer_id": pd.Categorical.from_codes(columns, pd.Index(laid.ids)),
        "campaign_id": pd.Categorical.from_codes(campaigns[columns], pd.Index(words)),
        "reason": pd.Categorical.from_codes(found["code"].to_numpy(), pd.Index(eligibility.REASONS)),
    }
    return pd.DataFrame({name: columns_of[name] for name in WITHHELD})
