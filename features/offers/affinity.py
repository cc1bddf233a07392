"""Customer-offer affinity: how much a customer buys of the products that an offer covers, and how they respond."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.families.stored_values import PRIOR_REDEEMED_RATE, PRIOR_RESPONSE_RATE
from features.offers import category_affinity, covered_products
from features.offers.category_affinity import ProductCategoryCodes

#: Lists of product history, and the feature that is each list's sum over an offer's products.
LIST_SUMS = {"weights_84d": "affinity_84d", "weights_120d": "affinity_120d", "times": "times"}
#: Features of the customer, whatever the offer, and their value for one who was never contacted. How recently or how
#: often a customer was contacted is left out: a model is trained as of the time at which an offer reaches a customer,
#: and is applied later, when that very offer already counts.
RESPONSE_DEFAULTS = {
    "response_rate": PRIOR_RESPONSE_RATE,
    "redeemed_rate": PRIOR_REDEEMED_RATE,
}
COLUMNS = (
    *LIST_SUMS.values(),
    "last_days",
    "products_share",
    "affinity_share",
    "affinity_lead",
    "rivals",
    "popularity",
    "price",
    "discount",
    "shelf_weight",
    "shelf_weight_28d",
    *category_affinity.COLUMNS,
    *RESPONSE_DEFAULTS,
)
KEY_COLUMNS = ["customer_key", "as_of", "offer_key"]
#: Largest table of customers by offers that is held at once; more customers are computed in batches.
MAX_CELLS = 5_000_000


def build_affinity_features(
    features: pd.DataFrame,
    pairs: pd.DataFrame,
    covers: pd.DataFrame,
    offers: pd.DataFrame,
    prices: pd.DataFrame,
    category_codes: ProductCategoryCodes | None = None,
) -> pd.DataFrame:
    """Affinity features, one row per row of `pairs`: customer_key, as_of, offer_key, then COLUMNS (float64).

    pairs: columns customer_key, as_of, offer_key; rows keep their order and index. features: rows of service offers_v1
    with customer_key and as_of, once each; a pair without one belongs to a customer without history. covers: offer_key,
    product_key. offers: offer_key, campaign_id, value, value_kind. prices: product_key, event_timestamp, price, sold;
    those of the latest time not after as_of are used. category_codes: categories of the products; without it, columns
    of category affinity are NaN.
    """
    rows = _feature_row_index(features, pairs)
    columns = {name: np.full(len(pairs), np.nan) for name in COLUMNS}
    for as_of, positions in pairs.groupby("as_of", sort=True).indices.items():
        covered = covered_products.build_covered_products(
            covers, prices, pd.Timestamp(str(as_of)), pairs["offer_key"].to_numpy()[positions]
        )
        for batch in _customer_batches(rows[positions], len(covered.offer_keys)):
            for name, values in _affinity_columns(
                features, rows[positions[batch]], covered, covered.pair_offer_index[batch], category_codes
            ).items():
                columns[name][positions[batch]] = values
    columns |= _discount_share(pairs, offers, columns["price"])
    for name, default in RESPONSE_DEFAULTS.items():
        columns[name] = _filled_response(features, name, rows, default)
    frame = pd.DataFrame({**{key: pairs[key] for key in KEY_COLUMNS}, **{name: columns[name] for name in COLUMNS}})
    return frame.assign(**_campaign_comparison(frame, pairs["offer_key"].map(_campaign_numbers(offers))))


def _feature_row_index(features: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """Position in `features` of each pair, (n_pairs,); -1 where there is none."""
    keys = pd.MultiIndex.from_arrays([features["customer_key"], features["as_of"]])
    return keys.get_indexer(pd.MultiIndex.from_arrays([pairs["customer_key"], pairs["as_of"]]))


def _customer_batches(rows: np.ndarray, n_offers: int) -> Iterator[np.ndarray]:
    """Positions of pairs with the same as_of, in batches of customers."""
    customers, positions = np.unique(rows, return_inverse=True)
    batch_size = max(1, MAX_CELLS // max(n_offers, 1))
    if len(customers) <= batch_size:
        yield np.arange(len(rows))
        return
    for start in range(0, len(customers), batch_size):
        yield np.flatnonzero((positions >= start) & (positions < start + batch_size))


@dataclass(frozen=True, slots=True)
class _CustomerProductLists:
    """Product lists of n_customers customers, one entry per list element.

    customer_index, product_keys and each of `values`: (n_entries,).
    """

    n_customers: int
    customer_index: np.ndarray
    product_keys: np.ndarray
    values: dict[str, np.ndarray]

    @classmethod
    def from_features(cls, features: pd.DataFrame, feature_rows: np.ndarray) -> "_CustomerProductLists":
        """The lists of some rows of `features`; -1, if any, is first and is a customer without lists."""
        n_without_features = int((feature_rows < 0).any())
        rows = feature_rows[n_without_features:]
        lists = features["product_keys"].to_numpy()[rows]
        filled = np.array([isinstance(each, np.ndarray | list) for each in lists], dtype=bool)
        lengths = [len(each) for each in lists[filled]]
        values = {
            name: _concatenate(features[name].to_numpy()[rows][filled])
            for name in (*LIST_SUMS, "weights_28d", "last_days")
        }
        owners = np.repeat(np.flatnonzero(filled) + n_without_features, lengths)
        return cls(len(feature_rows), owners, _concatenate(lists[filled], "int64"), values)


def _affinity_columns(
    features: pd.DataFrame,
    feature_rows: np.ndarray,
    covered: covered_products.CoveredProducts,
    offer_index: np.ndarray,
    category_codes: ProductCategoryCodes | None,
) -> dict[str, np.ndarray]:
    """Features of some pairs, (n_pairs,) each: purchases of their offers' products and categories."""
    unique_rows, customer_index = np.unique(feature_rows, return_inverse=True)
    product_lists = _CustomerProductLists.from_features(features, unique_rows)
    product_affinity = _product_affinity(product_lists, covered, customer_index, offer_index)
    customer_totals = _customer_totals(product_lists, len(unique_rows))
    columns = product_affinity | {name: values[customer_index] for name, values in customer_totals.items()}
    if category_codes is not None:
        product_weights = category_affinity.CustomerProductWeights(
            product_lists.n_customers,
            product_lists.customer_index,
            product_lists.product_keys,
            product_lists.values["weights_84d"],
        )
        columns |= category_affinity.score_category_affinity(
            category_codes, product_weights, covered, customer_index, offer_index
        )
    return columns | {
        "price": np.where(
            np.isnan(product_affinity["price"]), covered.mean_price[offer_index], product_affinity["price"]
        ),
        "products_share": divide_or_nan(columns.pop("bought"), covered.product_counts[offer_index]),
        "affinity_share": divide_or_nan(product_affinity["affinity_84d"], columns["shelf_weight"]),
        "popularity": covered.popularity[offer_index],
    }


def _product_affinity(
    product_lists: _CustomerProductLists,
    covered: covered_products.CoveredProducts,
    customer_index: np.ndarray,
    offer_index: np.ndarray,
) -> dict[str, np.ndarray]:
    """Purchases of each pair's customer among the offer's own products, and the price paid, (n_pairs,) each."""
    count = len(customer_index)
    cells = np.full(product_lists.n_customers * len(covered.offer_keys), -1, dtype="int32")
    cells[customer_index * len(covered.offer_keys) + offer_index] = np.arange(count, dtype="int32")
    first_positions = cells[customer_index * len(covered.offer_keys) + offer_index]  # a repeated pair is computed once
    pair_index, entries = _covered_entries(product_lists, covered, cells)
    columns = {
        column: np.bincount(pair_index, product_lists.values[name][entries], minlength=count)
        for name, column in LIST_SUMS.items()
    }
    columns["last_days"] = _grouped_min(pair_index, product_lists.values["last_days"][entries], count)
    columns["bought"] = np.bincount(pair_index, minlength=count).astype("float64")
    paid, weights = (
        _prices_paid(covered, product_lists.product_keys)[entries],
        product_lists.values["weights_84d"][entries],
    )
    columns["price"] = _weighted_price(pair_index, paid, weights, count)
    return {name: values[first_positions] for name, values in columns.items()}


def _covered_entries(
    product_lists: _CustomerProductLists, covered: covered_products.CoveredProducts, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """List entries that a requested offer covers: index of the pair and of the entry, (n_matches,) each."""
    covered_index = covered_products.find_positions(covered.product_keys, product_lists.product_keys)
    covered_entries = np.flatnonzero(covered_index >= 0)
    counts = (
        covered.product_starts[covered_index[covered_entries] + 1]
        - covered.product_starts[covered_index[covered_entries]]
    )
    entries = np.repeat(covered_entries, counts)
    within = np.arange(len(entries)) - np.repeat(np.cumsum(counts) - counts, counts)
    offers = covered.offer_index[covered.product_starts[covered_index[entries]] + within]
    pair_index = cells[product_lists.customer_index[entries] * len(covered.offer_keys) + offers]
    return pair_index[pair_index >= 0], entries[pair_index >= 0]


def _customer_totals(product_lists: _CustomerProductLists, n_customers: int) -> dict[str, np.ndarray]:
    """Total product weights of each customer, whatever the offer, (n_customers,) each."""
    weights = {"shelf_weight": "weights_84d", "shelf_weight_28d": "weights_28d"}
    return {
        column: np.bincount(product_lists.customer_index, product_lists.values[name], minlength=n_customers)
        for column, name in weights.items()
    }


def _discount_share(pairs: pd.DataFrame, offers: pd.DataFrame, price: np.ndarray) -> dict[str, np.ndarray]:
    """Value of an offer as a share of the price, (n_pairs,), clipped to [0, 1]."""
    pair_offers = offers.set_index("offer_key")[["value", "value_kind"]].reindex(pairs["offer_key"])
    value, kind = pair_offers["value"].to_numpy("float64"), pair_offers["value_kind"].to_numpy()
    share = np.where(kind == "percent", value / 100, np.where(kind == "amount", divide_or_nan(value, price), np.nan))
    return {"discount": np.clip(share, 0.0, 1.0)}


def _campaign_numbers(offers: pd.DataFrame) -> pd.Series:
    """Code of the campaign by offer_key; offers without a campaign share one code."""
    return pd.Series(pd.factorize(offers["campaign_id"])[0], index=offers["offer_key"])


def _campaign_comparison(frame: pd.DataFrame, campaigns: pd.Series) -> dict[str, np.ndarray]:
    """How an offer compares with the others of its campaign; serving requests several campaigns at once."""
    campaign_affinity = frame.groupby([frame["customer_key"], frame["as_of"], campaigns], sort=False)["affinity_84d"]
    return {
        "affinity_lead": divide_or_nan(frame["affinity_84d"].to_numpy(), campaign_affinity.transform("max").to_numpy()),
        "rivals": campaign_affinity.transform("size").to_numpy("float64"),
    }


def _filled_response(features: pd.DataFrame, name: str, rows: np.ndarray, default: float) -> np.ndarray:
    if not len(features):
        return np.full(len(rows), default)
    if name not in features:  # a feature that was added after the last snapshot
        return np.full(len(rows), default)
    values = features[name].to_numpy("float64")
    return np.where((rows < 0) | np.isnan(values[rows]), default, values[rows])


def _prices_paid(covered: covered_products.CoveredProducts, products: np.ndarray) -> np.ndarray:
    price_index = covered_products.find_positions(covered.priced_product_keys, products)
    return np.where(
        price_index < 0, np.nan, covered.product_prices[price_index] if len(covered.product_prices) else np.nan
    )


def _weighted_price(groups: np.ndarray, paid: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    has_price = ~np.isnan(paid)
    return covered_products.grouped_mean(groups[has_price], paid[has_price], count, weights[has_price])


def _grouped_min(groups: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    minima = np.full(count, np.inf)
    np.minimum.at(minima, groups, values)
    return np.where(np.isinf(minima), np.nan, minima)


def _concatenate(lists: np.ndarray, dtype: str = "float64") -> np.ndarray:
    return np.concatenate(lists).astype(dtype) if len(lists) else np.empty(0, dtype)


def divide_or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, (n,); NaN where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
