"""Lists the running offers that may not be made to each customer, each with the first reason why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from customers.marketing import eligibility, eligibility_inputs, stored_offers
from customers.marketing.offer_table import OfferTable
from customers.people import lookup
from customers.scores import score_store
from customers.shop.settings import Shop
from serving import runtime
from serving.offers import offer_inventory

INELIGIBLE_COLUMNS = ("customer_id", "offer_id", "campaign_id", "reason")
#: So many customers are judged at a time, each with every running offer.
_BATCH_SIZE = 2_000


def list_ineligible_offers(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """One row per customer of the last night and ineligible offer, the nearest to eligible first: INELIGIBLE_COLUMNS.

    They are judged at the time at which the stored offers of that night are (see `stored_offers.evaluation_times`).
    Texts repeat and are categories; customer ids are not, since a categorical column names all of its categories,
    also those whose rows have been removed.
    """
    evaluated_at, before = stored_offers.evaluation_times(shop, as_of)
    keys = score_store.load_run_scores(shop, "offers", as_of)["customer_key"].tolist()
    active_inventory = offer_inventory.load_offer_inventory(shop).filter_active(evaluated_at)
    offer_table = stored_offers.offer_table_as_of(shop, active_inventory.offer_table, before)
    parts = [
        _evaluate_batch(shop, offer_table, keys[start : start + _BATCH_SIZE], evaluated_at, before)
        for start in range(0, len(keys), _BATCH_SIZE)
    ]
    ineligible = pd.concat(parts) if parts else _evaluate_batch(shop, offer_table, [], evaluated_at, before)
    return _decode_keys(shop, offer_table, ineligible)


def _evaluate_batch(
    shop: Shop, offer_table: OfferTable, keys: Sequence[int], evaluated_at: datetime, before: datetime | None
) -> pd.DataFrame:
    """The ineligible offers of these customers: columns customer_key, column (of the table) and code."""
    customer_state = eligibility_inputs.load_customer_state(
        shop, keys, _load_basket_values(shop, offer_table, keys, before), before=before, now=evaluated_at
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
    """The value of their usual baskets, shape (n_keys,); None where no rule needs it, and for a day of the past.

    The online store holds the newest baskets only.
    """
    if before is not None or not keys or not offer_table.offers["min_spend"].notna().any():
        return None
    return runtime.open_runtime(shop).load_basket_values(keys)


def _decode_keys(shop: Shop, offer_table: OfferTable, ineligible: pd.DataFrame) -> pd.DataFrame:
    """The rows in INELIGIBLE_COLUMNS: codes as reason texts, keys as ids."""
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
