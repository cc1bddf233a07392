"""The offers of a shop as arrays: one row per offer, with what is true of each for all customers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.privacy.consents import CONSENT_FREE_CHANNELS

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OfferTable:
    """Offers, one row per offer, with what is true of each for all customers.

    `offers` has the columns of `offers.CATALOGUE_COLUMNS` and `public_id`, the id that callers use.
    The flags have shape (n_offers,). A table serves many questions: what is derived from it is computed once.
    """

    offers: pd.DataFrame
    has_no_products: Flags
    is_sold_out: Flags
    is_budget_spent: Flags

    @cached_property
    def channel_bits(self) -> dict[str, int]:
        """A bit for each channel on which any of the offers is made."""
        names = sorted({name for channels in self.offers["channels"] for name in channels})
        return {name: 1 << position for position, name in enumerate(names)}

    @cached_property
    def offer_channels(self) -> Ints:
        """The channels of each offer as a sum of `channel_bits`, shape (n_offers,); 0 for an offer without channels."""
        return self.encode_channels(self.offers["channels"])

    @cached_property
    def open_channels(self) -> int:
        """The channels that need no consent, as a sum of `channel_bits`."""
        return sum(self.channel_bits.get(name, 0) for name in CONSENT_FREE_CHANNELS)

    @cached_property
    def campaigns(self) -> tuple[pd.Index, Ints]:
        """The campaign ids, and the position of each offer's among them, shape (n_offers,); -1 for no campaign."""
        names = pd.Index(self.offers["campaign_id"].dropna().unique())
        return names, np.asarray(names.get_indexer(pd.Index(self.offers["campaign_id"])), np.int64)

    @cached_property
    def offer_keys(self) -> pd.Index:
        """The key of each offer, in the order of the rows."""
        return pd.Index(self.offers["offer_key"])

    @cached_property
    def offer_ids(self) -> list[str]:
        """The id of each offer, in the order of the rows."""
        return self.offers["public_id"].tolist()

    @cached_property
    def end_times(self) -> Ints:
        """When each offer ends, as a number that rises with time, shape (n_offers,)."""
        return self.offers["ends_at"].to_numpy(np.int64)

    def encode_channels(self, channel_lists: Iterable[Collection[str]]) -> Ints:
        """Each list of channels as a sum of `channel_bits`, shape (n_lists,); channels of no offer count nothing."""
        code_by_list: dict[tuple[str, ...], int] = {}
        codes = []
        for channels in map(tuple, channel_lists):
            if channels not in code_by_list:
                code_by_list[channels] = sum(self.channel_bits.get(name, 0) for name in set(channels))
            codes.append(code_by_list[channels])
        return np.array(codes, np.int64)


def build_offer_table(offer_rows: pd.DataFrame, covers: pd.DataFrame, *, sold_out: Collection[int]) -> OfferTable:
    """The table of these offers, one row per offer in their order, with no budget spent.

    `covers` has the columns offer_key and product_key; `sold_out` are product keys.
    """
    keys = offer_rows["offer_key"]
    sold_out_share = covers["product_key"].isin(list(sold_out)).groupby(covers["offer_key"]).mean()
    return OfferTable(
        offers=offer_rows.reset_index(drop=True),
        has_no_products=~keys.isin(covers["offer_key"].unique()).to_numpy(bool),
        is_sold_out=(keys.map(sold_out_share) == 1).to_numpy(bool),
        is_budget_spent=np.zeros(len(offer_rows), bool),
    )


def with_spent_budgets(table: OfferTable, redemption_counts: pd.Series) -> OfferTable:
    """The same table, with the budgets that are spent.

    `redemption_counts`, shape (n_redeemed_offers,), has the redemptions by all customers under each offer key. Only
    offers of a fixed amount use up their budget, their value at each redemption.
    """
    offers = table.offers
    value = offers["value"].where(offers["value_kind"] == "amount").fillna(0).to_numpy(np.float64)
    spent_amount = offers["offer_key"].map(redemption_counts).fillna(0).to_numpy(np.float64) * value
    return replace(table, is_budget_spent=np.asarray(spent_amount >= offers["budget"].to_numpy(np.float64)))


def without_stock(table: OfferTable) -> OfferTable:
    """The same table with no offer sold out: today's stock is no fact of a past day."""
    return replace(table, is_sold_out=np.zeros(len(table.offers), bool))
