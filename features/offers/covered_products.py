"""Goods: what offers are for, what those products go for, and how well they sell, at one moment."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class CoveredProducts:
    """The offers in question with the products they cover, and the price of everything."""

    offer_keys: np.ndarray  # offer keys, rising
    pair_offer_index: np.ndarray  # of each pair asked about, where its offer is among them
    product_keys: np.ndarray  # covered product keys, rising
    product_starts: np.ndarray  # of each covered product, where its offers start in `owners`; one more at the end
    offer_index: np.ndarray  # places of offers, product by product
    covered_product_keys: np.ndarray  # the product of each of them
    sales_share: np.ndarray  # and its lines sold, of all that were
    product_counts: np.ndarray
    popularity: np.ndarray
    mean_price: np.ndarray
    priced_product_keys: np.ndarray  # products with a price, rising
    product_prices: np.ndarray  # their prices


def build_covered_products(
    covers: pd.DataFrame, prices: pd.DataFrame, as_of: pd.Timestamp, pair_offer_keys: np.ndarray
) -> CoveredProducts:
    """The goods of the offers asked about, at prices before a moment."""
    offers, pair_offer_index = np.unique(pair_offer_keys, return_inverse=True)
    owners, keys = covers["offer_key"].to_numpy(), covers["product_key"].to_numpy()
    is_requested = np.isin(owners, offers)
    owners, keys = np.searchsorted(offers, owners[is_requested]), keys[is_requested]
    order = np.argsort(keys, kind="stable")
    owners, keys = owners[order], keys[order]
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
        owners,
        keys,
        share,
        product_counts=np.bincount(owners, minlength=len(offers)).astype("float64"),
        popularity=np.bincount(owners, share, minlength=len(offers)),
        mean_price=grouped_mean(owners[has_price], paid[price_index[has_price]], len(offers)),
        priced_product_keys=priced,
        product_prices=paid,
    )


def find_positions(sorted_keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each is among rising keys, -1 for one that is not there."""
    if not len(sorted_keys):
        return np.full(len(wanted), -1)
    positions = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return np.where(sorted_keys[positions] == wanted, positions, -1)


def grouped_mean(groups: np.ndarray, values: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of each group, NaN for an empty one."""
    weights = np.ones(len(values)) if weights is None else weights
    total = np.bincount(groups, weights, minlength=count)
    sums = np.bincount(groups, values * weights, minlength=count)
    return np.divide(sums, total, out=np.full(count, np.nan), where=total > 0)


def _latest_prices(prices: pd.DataFrame, as_of: pd.Timestamp) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products with a sale before a moment, rising, with price and lines sold."""
    times = prices["event_timestamp"]
    early = times[times <= as_of]
    current = prices.loc[early.index[early == early.max()]] if len(early) else prices.head(0)
    current = current.sort_values("product_key")
    return tuple(current[name].to_numpy() for name in ("product_key", "price", "sold"))  # type: ignore[return-value]
