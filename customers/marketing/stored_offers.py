"""Rechecks stored offers when they are read, by the rechecked rules of `eligibility`.

Since the nightly run stored them, an offer may have ended, been redeemed, sold out or been narrowed, and a customer may
have revoked a consent. Every reader of stored offers uses this module.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from customers import clock
from customers.marketing import eligibility, eligibility_inputs
from customers.marketing.offer_table import OfferTable, without_stock
from customers.scores import score_store
from customers.shop.settings import Shop

#: A night's offers are valid for a day, and a night may come late; offers of an older night belong to the past.
MAX_AGE = timedelta(days=2)
#: So many customers are judged together, to bound the memory for what they received and redeemed.
BATCH_SIZE = 20_000


def is_still_eligible(shop: Shop, pairs: pd.DataFrame, *, as_of: datetime | None = None) -> pd.Series:
    """Whether each stored offer may still be made to its customer: flags with the index of `pairs`.

    `pairs` has the columns customer_key and offer_key, one row per stored offer of the scores of `as_of`, or of the
    newest. Offers of the past are judged as they could be then (see `evaluation_times`); what a customer has not
    allowed today is refused for every day.
    """
    evaluated_at, before = evaluation_times(shop, as_of)
    table = offer_table_as_of(shop, eligibility_inputs.load_current_offers(shop).offer_table, before)
    rows, keys = pd.factorize(pairs["customer_key"])
    columns = table.offer_keys.get_indexer(pd.Index(pairs["offer_key"]))
    is_eligible = np.zeros(len(pairs), bool)
    for start in range(0, len(keys), BATCH_SIZE):
        batch_keys = [int(key) for key in keys[start : start + BATCH_SIZE]]
        state = eligibility_inputs.load_customer_state(shop, batch_keys, before=before, now=evaluated_at)
        in_batch = np.flatnonzero((rows >= start) & (rows < start + BATCH_SIZE) & (columns >= 0))
        codes = eligibility.recheck_pairs(table, state, rows[in_batch] - start, columns[in_batch], now=evaluated_at)
        is_eligible[in_batch] = codes == 0
    return pd.Series(is_eligible, pairs.index)


def evaluation_times(shop: Shop, as_of: datetime | None) -> tuple[datetime, datetime | None]:
    """Returns (evaluated_at, before): when stored offers are judged, and before when facts had to be known.

    `before` is None where all facts count. Offers of the newest night, or of none in particular, are judged now. Where
    a later night has run, or should have, they are judged at their own `as_of`, by contacts and redemptions known
    before it.
    """
    now = clock.now(shop)
    if as_of is not None and _is_superseded(shop, as_of):
        return as_of, as_of
    return (now if as_of is None else max(now, as_of)), None


def count_begun_and_ended(shop: Shop) -> tuple[int, int]:
    """How many offers have begun by now and how many have ended: caches of stored offers compare it as time passes."""
    offers, now = eligibility_inputs.load_current_offers(shop).offer_table.offers, clock.now(shop)
    return int((offers["starts_at"] <= now).sum()), int((offers["ends_at"] <= now).sum())


def offer_table_as_of(shop: Shop, table: OfferTable, before: datetime | None) -> OfferTable:
    """The table with budgets spent before that time; for a day of the past the stock of today is not judged."""
    table = eligibility_inputs.with_budgets_as_of(shop, table, before)
    return table if before is None else without_stock(table)


def _is_superseded(shop: Shop, as_of: datetime) -> bool:
    """Whether a later night has stored offers, or the night is older than MAX_AGE."""
    run = score_store.newest_run(shop, "offers")
    return (run is not None and run.as_of > as_of) or as_of < clock.now(shop) - MAX_AGE
