"""Demand: what the shop will sell of each product in each of the next weeks, by whatever foretold it best lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from customers import catalogue, clock, consent, nights
from customers.shop import Shop
from features import needs, snapshot, weeks
from models import supply
from models.base import Floats
from models.supply import MEMORY, WEEKS, Sold
from pipelines.failures import NothingToDo
from training import labels

COLUMNS = (
    "product_id", "category", "week_start", "expected_units", "last_week_units", "mean_4w_units", "method",
)  # fmt: skip
WAYS = (supply.LAST_WEEK, supply.MEAN, supply.SHARED, supply.NEEDED)
#: The months before on which the ways are compared.
CUTOFFS = 2
NEED = ["times", "last_days", "first_days"]


@dataclass(frozen=True)
class Trade:
    """What was sold until now, of which products, and the purchases that customers' needs foretold every month."""

    as_of: datetime
    products: pd.DataFrame
    sold: Sold
    needs: dict[int, Floats]

    def expected(self, back: int, ways: tuple[str, ...] = WAYS) -> dict[str, Floats]:
        """What each way would have said `back` weeks ago."""
        now, then = self.needs.get(back), self.needs.get(back + WEEKS)
        growth = None if now is None or then is None else supply.grown(now, then)
        return supply.expected(self.sold.before(back), ways, growth)


def table(shop: Shop) -> pd.DataFrame:
    """A row a product and week ahead: COLUMNS; products that were sold in the last half year.

    `method` is the way that foretold the last two months best, over products and over categories. As of the latest
    day that any night looked at: a replay of an earlier day changes nothing.
    """
    seen = look(shop)
    said, figures = seen.expected(0), backtest(seen)
    way = supply.best(figures[figures["way"].isin(list(said))])
    first = seen.as_of.astimezone(shop.zone).date()
    lately = seen.sold.units[:, :MEMORY].any(axis=1)
    products, units, count = seen.products[lately], seen.sold.units[lately], int(lately.sum())
    beside: dict[str, Any] = {
        "week_start": np.tile([first + timedelta(days=7 * week) for week in range(WEEKS)], count),
        "expected_units": np.round(said[way][lately].reshape(-1), 3),
        "last_week_units": np.repeat(units[:, 0], WEEKS),
        "mean_4w_units": np.repeat(units[:, :WEEKS].mean(axis=1), WEEKS),
        "method": way,
    }
    rows = products.loc[products.index.repeat(WEEKS)].reset_index(drop=True)
    names = catalogue.ids_of(shop, [int(key) for key in products["product_key"]])
    return rows.assign(product_id=rows["product_key"].map(names), **beside)[list(COLUMNS)]


def backtest(seen: Trade) -> pd.DataFrame:
    """How wrong each way was in the months before: way, weeks_back, products, categories (errors in money)."""
    rows = []
    for back in (WEEKS * month for month in range(1, CUTOFFS + 1)):
        if seen.sold.units[:, back : back + WEEKS].sum() <= 0:
            continue
        came = seen.sold.came(back)
        rows += [
            (way, back, supply.error(seen.sold, came, said), supply.error(seen.sold, came, said, by_category=True))
            for way, said in seen.expected(back).items()
        ]
    return pd.DataFrame(rows, columns=["way", "weeks_back", "products", "categories"])


def look(shop: Shop) -> Trade:
    """The shop's sales as of its last night, or of now where there was none, and what its needs foretold by month."""
    as_of = nights.last_looked(shop) or clock.now(shop)
    ledger = shop.home / "ledger"
    span = MEMORY + CUTOFFS * WEEKS
    sales = weeks.sold(ledger, as_of=as_of, timezone=shop.timezone, weeks=span)
    if not (sales["weeks_back"] <= MEMORY).any():
        raise NothingToDo("nothing was sold in the last half year; run: regulars load transactions FILE")
    keys = np.unique(sales["product_key"].to_numpy(np.int64))
    words = snapshot.products(ledger).set_index("product_key")["category"].reindex(keys)
    products = pd.DataFrame({"product_key": keys, "category": words.to_numpy(dtype=object)})
    numbers, categories = pd.factorize(words.fillna("").to_numpy(dtype=object))
    sold = Sold(_weekly(sales, keys, span), numbers.astype(np.int64), _prices(sales, keys))
    return Trade(as_of, products, sold, _needs(shop, as_of, pd.Index(categories)))


def _weekly(sales: pd.DataFrame, keys: np.ndarray, span: int) -> Floats:
    units = np.zeros((len(keys), span))
    place = np.searchsorted(keys, sales["product_key"].to_numpy(np.int64))
    units[place, sales["weeks_back"].to_numpy(np.int64) - 1] = sales["units"].to_numpy(np.float64)
    return units


def _prices(sales: pd.DataFrame, keys: np.ndarray) -> Floats:
    """What a piece of each product costs; where nothing has a price, every piece counts the same."""
    totals = sales.groupby("product_key")[["worth", "units"]].sum().reindex(keys)
    price = (totals["worth"] / totals["units"]).to_numpy(np.float64)
    known = np.isfinite(price) & (price > 0)
    return np.where(known, price, np.median(price[known]) if known.any() else 1.0)


def _needs(shop: Shop, as_of: datetime, categories: pd.Index) -> dict[int, Floats]:
    """The purchases that needs foretold so many weeks back, as far as the last night's figures reach."""
    path = shop.home / "features" / "needs" / "part.parquet"
    if not path.exists():
        return {}
    lists = [f"need_{name}" for name in NEED]
    found = pd.read_parquet(path, columns=["customer_key", "event_timestamp", "categories", *lists])
    found = found[found["customer_key"].isin(consent.allowed(shop, found["customer_key"].unique(), "profiling"))]
    today = labels.local_days(found["event_timestamp"], shop.timezone)
    back = (pd.Timestamp(as_of.astimezone(shop.zone).date()) - pd.Timestamp(0)).days - today
    told = {}
    for weeks_back in range(0, WEEKS * (CUTOFFS + 2), WEEKS):
        rows = found[back == 7 * weeks_back]
        if len(rows):
            told[weeks_back] = supply.purchases(_laid_out(rows), categories)
    return told


def _laid_out(rows: pd.DataFrame) -> pd.DataFrame:
    columns = {f"need_{needs.NUMBERS[name]}": rows[f"need_{name}"] for name in NEED} | {"category": rows["categories"]}
    return pd.DataFrame({name: np.concatenate([*lists.dropna(), []]) for name, lists in columns.items()})
