"""Products that offers cover, with prices and sales as of one cutoff."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class CoveredProducts:
    """The products that some offers cover, and the prices of all products."""

    offer_keys: np.ndarray  # ascending, (n_offers,)
    pair_offer_index: np.ndarray  # position of each pair's offer in offer_keys, (n_pairs,)
    product_keys: np.ndarray  # covered products, ascending
    product_starts: np.ndarray  # where each covered product's entries start; one more at the end
    offer_index: np.ndarray  # position in offer_keys of each entry, product by product
    covered_product_keys: np.ndarray  # product of each entry
    sales_share: np.ndarray  # its share of all lines sold
    product_counts: np.ndarray  # number of products by offer, (n_offers,)
    popularity: np.ndarray  # share of all lines sold by offer
    mean_price: np.ndarray  # mean price of its products by offer
    priced_product_keys: np.ndarray  # products with a sale, ascending
    product_prices: np.ndarray  # their prices, NaN where none is known


def build_covered_products(
    covers: pd.DataFrame, prices: pd.DataFrame, as_of: pd.Timestamp, pair_offer_keys: np.ndarray
) -> CoveredProducts:
    """Products covered by the offers in pair_offer_keys (n_pairs,), with the latest prices not after `as_of`.

    covers: columns offer_key, product_key. prices: columns product_key, event_timestamp, price, sold.
    """
    offers, pair_offer_index = np.unique(pair_offer_keys, return_inverse=True)
    entry_offers, keys = covers["offer_key"].to_numpy(), covers["product_key"].to_numpy()
    is_requested = np.isin(entry_offers, offers)
    entry_offers, keys = np.searchsorted(offers, entry_offers[is_requested]), keys[is_requested]
    order = np.argsort(keys, kind="stable")
    entry_offers, keys = entry_offers[order], keys[order]
    products, starts = np.unique(keys, return_index=True)
    priced, paid, sold = _latest_prices(prices, as_of)
    price_index = find_positions(priced, keys)
    has_sales = price_index >= 0
    share = np.zeros(len(keys))
    share[has_sales] = sold[price_index[has_sales]] / max(sold.sum(), 1.0)
    has_price = has_sales.copy()
    has_price[has_sales] = ~np.isnan(paid[price_index[has_sales]])
    return CoveredProducts(
        offers,
        pair_offer_index,
        products,
        np.append(starts, len(keys)),
        entry_offers,
        keys,
        share,
        product_counts=np.bincount(entry_offers, minlength=len(offers)).astype("float64"),
        popularity=np.bincount(entry_offers, share, minlength=len(offers)),
        mean_price=grouped_mean(entry_offers[has_price], paid[price_index[has_price]], len(offers)),
        priced_product_keys=priced,
        product_prices=paid,
    )


def find_positions(sorted_keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of each of `wanted` (n,) in ascending keys, (n,); -1 where it is not among them."""
    if not len(sorted_keys):
        return np.full(len(wanted), -1)
    positions = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return np.where(sorted_keys[positions] == wanted, positions, -1)


def grouped_mean(groups: np.ndarray, values: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean of values (n,) by group, weighted by `weights`, (count,); NaN for an empty group."""
    weights = np.ones(len(values)) if weights is None else weights
    total = np.bincount(groups, weights, minlength=count)
    sums = np.bincount(groups, values * weights, minlength=count)
    return np.divide(sums, total, out=np.full(count, np.nan), where=total > 0)


def _latest_prices(prices: pd.DataFrame, as_of: pd.Timestamp) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """product_key (ascending), price and lines sold, (n_products,) each, of the latest time not after `as_of`."""
    times = prices["event_timestamp"]
    early = times[times <= as_of]
    current = prices.loc[early.index[early == early.max()]] if len(early) else prices.head(0)
    current = current.sort_values("product_key")
    return tuple(current[name].to_numpy() for name in ("product_key", "price", "sold"))  # type: ignore[return-value]
