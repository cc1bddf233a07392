"""Withheld: of the offers that run, those that may not be made to a customer, each with the first reason why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from customers.marketing import eligibility, eligibility_inputs, eligibility_recheck
from customers.marketing.eligibility import OfferTable
from customers.people import lookup
from customers.scores import score_store
from customers.shop.settings import Shop
from serving import runtime
from serving.offers import offer_inventory

INELIGIBLE_COLUMNS = ("customer_id", "offer_id", "campaign_id", "reason")
#: So many customers are judged at a time, each beside every offer that runs.
_BATCH_SIZE = 2_000


def list_ineligible_offers(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """A row a customer of whom the last night spoke and offer that may not be made to them, nearest to it first.

    It is judged when what that night found is judged: see `validity.standpoint`. Words repeat: they are categories.
    Customers are not, since a file of categories names them all, also those whose rows are gone.
    """
    evaluated_at, before = eligibility_recheck.evaluation_times(shop, as_of)
    keys = score_store.load_run_scores(shop, "offers", as_of)["customer_key"].tolist()
    active_inventory = offer_inventory.load_offer_inventory(shop).filter_active(evaluated_at)
    offer_table = offer_inventory.load_offer_table(shop, active_inventory, before=before)
    parts = [
        _evaluate_batch(shop, offer_table, keys[start : start + _BATCH_SIZE], evaluated_at, before)
        for start in range(0, len(keys), _BATCH_SIZE)
    ]
    ineligible = pd.concat(parts) if parts else _evaluate_batch(shop, offer_table, [], evaluated_at, before)
    return _decode_keys(shop, offer_table, ineligible)


def _evaluate_batch(
    shop: Shop, offer_table: OfferTable, keys: Sequence[int], evaluated_at: datetime, before: datetime | None
) -> pd.DataFrame:
    """customer_key, column (of the table) and code of what may not be made to these customers."""
    customer_state = eligibility_inputs.load_customer_state(
        shop, keys, _load_basket_values(shop, offer_table, keys, before), before=before
    )
    eligibility_codes = eligibility.evaluate_eligibility(offer_table, customer_state, now=evaluated_at)
    rows, columns = np.nonzero(eligibility_codes)
    codes = eligibility_codes[rows, columns]
    order = np.lexsort((-offer_table.end_times[columns], -codes, rows))
    customers = np.array(keys, np.int64)[rows]
    return pd.DataFrame({"customer_key": customers, "column": columns, "code": codes}).take(order)


def _load_basket_values(
    shop: Shop, offer_table: OfferTable, keys: Sequence[int], before: datetime | None
) -> np.ndarray | None:
    """What their usual baskets are worth, where it matters; of a day gone by nobody has kept it."""
    if before is not None or not keys or not offer_table.offers["min_spend"].notna().any():
        return None
    return runtime.open_runtime(shop).load_basket_values(keys)


def _decode_keys(shop: Shop, offer_table: OfferTable, ineligible: pd.DataFrame) -> pd.DataFrame:
    """Codes in words and keys as ids, each text kept once."""
    customer_ids = lookup.find_ids(shop, ineligible["customer_key"].unique().tolist())
    columns = ineligible["column"].to_numpy(np.int64)
    campaigns, campaign_ids = pd.factorize(offer_table.offers["campaign_id"])
    customers = pd.Categorical(ineligible["customer_key"])
    values_by_name = {
        "customer_id": customers.rename_categories(customer_ids).astype(object),
        "offer_id": pd.Categorical.from_codes(columns, pd.Index(offer_table.offer_ids)),
        "campaign_id": pd.Categorical.from_codes(campaigns[columns], pd.Index(campaign_ids)),
        "reason": pd.Categorical.from_codes(ineligible["code"].to_numpy(), pd.Index(eligibility.REASONS)),
    }
    return pd.DataFrame({name: values_by_name[name] for name in INELIGIBLE_COLUMNS})
