"""Goods: what offers are for, what those products go for, and how well they sell, at one moment."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class Goods:
    """The offers in question with the products they cover, and the price of everything."""

    offers: np.ndarray  # offer keys, rising
    places: np.ndarray  # of each pair asked about, where its offer is among them
    products: np.ndarray  # covered product keys, rising
    starts: np.ndarray  # of each covered product, where its offers start in `owners`; one more at the end
    owners: np.ndarray  # places of offers, product by product
    covered: np.ndarray  # the product of each of them
    sold: np.ndarray  # and its lines sold, of all that were
    breadth: np.ndarray
    popularity: np.ndarray
    price: np.ndarray
    priced: np.ndarray  # products with a price, rising
    paid: np.ndarray  # their prices


def of(covers: pd.DataFrame, prices: pd.DataFrame, moment: pd.Timestamp, asked: np.ndarray) -> Goods:
    """The goods of the offers asked about, at prices before a moment."""
    offers, places = np.unique(asked, return_inverse=True)
    owners, keys = covers["offer_key"].to_numpy(), covers["product_key"].to_numpy()
    mine = np.isin(owners, offers)
    owners, keys = np.searchsorted(offers, owners[mine]), keys[mine]
    order = np.argsort(keys, kind="stable")
    owners, keys = owners[order], keys[order]
    products, starts = np.unique(keys, return_index=True)
    priced, paid, sold = _latest(prices, moment)
    found = find(priced, keys)
    here = found >= 0
    share = np.zeros(len(keys))
    share[here] = sold[found[here]] / max(sold.sum(), 1.0)
    known = here.copy()
    known[here] = ~np.isnan(paid[found[here]])
    return Goods(
        offers,
        places,
        products,
        np.append(starts, len(keys)),
        owners,
        keys,
        share,
        breadth=np.bincount(owners, minlength=len(offers)).astype("float64"),
        popularity=np.bincount(owners, share, minlength=len(offers)),
        price=mean(owners[known], paid[found[known]], len(offers)),
        priced=priced,
        paid=paid,
    )


def find(rising: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each is among rising keys, -1 for one that is not there."""
    if not len(rising):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(rising, wanted), len(rising) - 1)
    return np.where(rising[places] == wanted, places, -1)


def mean(groups: np.ndarray, values: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of each group, NaN for an empty one."""
    weights = np.ones(len(values)) if weights is None else weights
    total = np.bincount(groups, weights, minlength=count)
    sums = np.bincount(groups, values * weights, minlength=count)
    return np.divide(sums, total, out=np.full(count, np.nan), where=total > 0)


def _latest(prices: pd.DataFrame, moment: pd.Timestamp) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products with a sale before a moment, rising, with price and lines sold."""
    times = prices["event_timestamp"]
    early = times[times <= moment]
    now = prices.loc[early.index[early == early.max()]] if len(early) else prices.head(0)
    now = now.sort_values("product_key")
    return tuple(now[name].to_numpy() for name in ("product_key", "price", "sold"))  # type: ignore[return-value]
