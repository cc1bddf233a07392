"""Appeal: how well an offer suits a customer, from what they buy of the products it is for, and how they respond."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features import engagement, goods, sorts
from features.sorts import Sorts

#: Names of the shelf's lists, and what is made of them for an offer.
SUMS = {"weights_84d": "affinity_84d", "weights_120d": "affinity_120d", "times": "times"}
#: What is known of the customer whatever the offer, and what holds for one who was never sent any. How lately or how
#: often they were sent something is left out: a model learns from the moment at which an offer reaches somebody, and is
#: asked later, when that very offer counts already.
RESPONSE = {
    "response_rate": engagement.USUAL_RESPONSE,
    "redeemed_rate": engagement.USUAL_REDEEMED,
}
COLUMNS = (
    *SUMS.values(),
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
    *sorts.COLUMNS,
    *RESPONSE,
)
KEYS = ["customer_key", "as_of", "offer_key"]
#: A table of so many customers and offers is laid out at once; more are taken in turns.
CELLS = 5_000_000


def pairs(
    figures: pd.DataFrame,
    wanted: pd.DataFrame,
    covers: pd.DataFrame,
    offers: pd.DataFrame,
    prices: pd.DataFrame,
    catalogue: Sorts | None = None,
) -> pd.DataFrame:
    """A row for each wanted (customer_key, as_of, offer_key), in their order and index: these keys, then COLUMNS.

    figures: rows of service offers_v1 with customer_key and as_of, once each; a wanted pair without one is of a
    customer of whom nothing is known. covers: offer_key, product_key. offers: offer_key, campaign_id, value,
    value_kind. prices: product_key, event_timestamp, price, sold; the latest moment not after as_of counts.
    catalogue: of what sort each product is; without it nothing is known of an offer's kin.
    """
    rows = _rows(figures, wanted)
    made = {name: np.full(len(wanted), np.nan) for name in COLUMNS}
    for moment, places in wanted.groupby("as_of", sort=True).indices.items():
        wares = goods.of(covers, prices, pd.Timestamp(str(moment)), wanted["offer_key"].to_numpy()[places])
        for some in _turns(rows[places], len(wares.offers)):
            for name, values in _suited(figures, rows[places[some]], wares, wares.places[some], catalogue).items():
                made[name][places[some]] = values
    made |= _terms(wanted, offers, made["price"])
    for name, usual in RESPONSE.items():
        made[name] = _filled(figures, name, rows, usual)
    frame = pd.DataFrame({**{key: wanted[key] for key in KEYS}, **{name: made[name] for name in COLUMNS}})
    return frame.assign(**_rivals(frame, wanted["offer_key"].map(_campaigns(offers))))


def _rows(figures: pd.DataFrame, wanted: pd.DataFrame) -> np.ndarray:
    """Where the figures of each wanted pair are, -1 for nowhere."""
    keys = pd.MultiIndex.from_arrays([figures["customer_key"], figures["as_of"]])
    return keys.get_indexer(pd.MultiIndex.from_arrays([wanted["customer_key"], wanted["as_of"]]))


def _turns(rows: np.ndarray, offers: int) -> Iterator[np.ndarray]:
    """The pairs of a moment, so many customers at a time."""
    customers, places = np.unique(rows, return_inverse=True)
    at_once = max(1, CELLS // max(offers, 1))
    if len(customers) <= at_once:
        yield np.arange(len(rows))
        return
    for start in range(0, len(customers), at_once):
        yield np.flatnonzero((places >= start) & (places < start + at_once))


@dataclass(frozen=True, slots=True)
class _Shelves:
    """The shelves of so many customers, product after product: whose each is, and its numbers."""

    people: int
    owners: np.ndarray
    products: np.ndarray
    numbers: dict[str, np.ndarray]

    @classmethod
    def of(cls, figures: pd.DataFrame, people: np.ndarray) -> "_Shelves":
        """Of the rows of figures; the unknown, if any, stand first as row -1 and have nothing."""
        unknown = int((people < 0).any())
        rows = people[unknown:]
        lists = figures["product_keys"].to_numpy()[rows]
        filled = np.array([isinstance(each, np.ndarray | list) for each in lists], dtype=bool)
        lengths = [len(each) for each in lists[filled]]
        numbers = {name: _flat(figures[name].to_numpy()[rows][filled]) for name in (*SUMS, "weights_28d", "last_days")}
        owners = np.repeat(np.flatnonzero(filled) + unknown, lengths)
        return cls(len(people), owners, _flat(lists[filled], "int64"), numbers)


def _suited(
    figures: pd.DataFrame, rows: np.ndarray, wares: goods.Goods, offers: np.ndarray, catalogue: Sorts | None
) -> dict[str, np.ndarray]:
    """What the customers of some pairs bought of the products of their offers, and of others of their sorts."""
    people, person = np.unique(rows, return_inverse=True)
    shelves = _Shelves.of(figures, people)
    own = _bought(shelves, wares, person, offers)
    mine = _habits(shelves, len(people))
    made = own | {name: values[person] for name, values in mine.items()}
    if catalogue is not None:
        held = sorts.Held(shelves.people, shelves.owners, shelves.products, shelves.numbers["weights_84d"])
        made |= sorts.liking(catalogue, held, wares, person, offers)
    return made | {
        "price": np.where(np.isnan(own["price"]), wares.price[offers], own["price"]),
        "products_share": over(made.pop("bought"), wares.breadth[offers]),
        "affinity_share": over(own["affinity_84d"], made["shelf_weight"]),
        "popularity": wares.popularity[offers],
    }


def _bought(shelves: _Shelves, wares: goods.Goods, person: np.ndarray, offers: np.ndarray) -> dict[str, np.ndarray]:
    """What each pair's customer bought of the very products of its offer, and what they paid for those."""
    count = len(person)
    cells = np.full(shelves.people * len(wares.offers), -1, dtype="int32")
    cells[person * len(wares.offers) + offers] = np.arange(count, dtype="int32")
    first = cells[person * len(wares.offers) + offers]  # a pair asked twice is worked out once
    hit, entries = _hits(shelves, wares, cells)
    made = {to: np.bincount(hit, shelves.numbers[name][entries], minlength=count) for name, to in SUMS.items()}
    made["last_days"] = _least(hit, shelves.numbers["last_days"][entries], count)
    made["bought"] = np.bincount(hit, minlength=count).astype("float64")
    paid, weights = _paid(wares, shelves.products)[entries], shelves.numbers["weights_84d"][entries]
    made["price"] = _priced(hit, paid, weights, count)
    return {name: values[first] for name, values in made.items()}


def _hits(shelves: _Shelves, wares: goods.Goods, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each product on a shelf that an offer asked about covers: the place of the pair, and of the product."""
    found = goods.find(wares.products, shelves.products)
    mine = np.flatnonzero(found >= 0)
    counts = wares.starts[found[mine] + 1] - wares.starts[found[mine]]
    entries = np.repeat(mine, counts)
    within = np.arange(len(entries)) - np.repeat(np.cumsum(counts) - counts, counts)
    offers = wares.owners[wares.starts[found[entries]] + within]
    hit = cells[shelves.owners[entries] * len(wares.offers) + offers]
    return hit[hit >= 0], entries[hit >= 0]


def _habits(shelves: _Shelves, people: int) -> dict[str, np.ndarray]:
    """How much each customer buys whatever the offer."""
    weights = {"shelf_weight": "weights_84d", "shelf_weight_28d": "weights_28d"}
    return {to: np.bincount(shelves.owners, shelves.numbers[name], minlength=people) for to, name in weights.items()}


def _terms(wanted: pd.DataFrame, offers: pd.DataFrame, price: np.ndarray) -> dict[str, np.ndarray]:
    """What an offer gives, of the price."""
    named = offers.set_index("offer_key")[["value", "value_kind"]].reindex(wanted["offer_key"])
    value, kind = named["value"].to_numpy("float64"), named["value_kind"].to_numpy()
    share = np.where(kind == "percent", value / 100, np.where(kind == "amount", over(value, price), np.nan))
    return {"discount": np.clip(share, 0.0, 1.0)}


def _campaigns(offers: pd.DataFrame) -> pd.Series:
    """A number for the campaign of each offer; offers without one stand together."""
    return pd.Series(pd.factorize(offers["campaign_id"])[0], index=offers["offer_key"])


def _rivals(frame: pd.DataFrame, campaigns: pd.Series) -> dict[str, np.ndarray]:
    """How an offer stands among the others of its campaign: at the door several campaigns are asked about at once."""
    together = frame.groupby([frame["customer_key"], frame["as_of"], campaigns], sort=False)["affinity_84d"]
    return {
        "affinity_lead": over(frame["affinity_84d"].to_numpy(), together.transform("max").to_numpy()),
        "rivals": together.transform("size").to_numpy("float64"),
    }


def _filled(figures: pd.DataFrame, name: str, rows: np.ndarray, usual: float) -> np.ndarray:
    if not len(figures):
        return np.full(len(rows), usual)
    if name not in figures:  # a number that was added since the last night
        return np.full(len(rows), usual)
    known = figures[name].to_numpy("float64")
    return np.where((rows < 0) | np.isnan(known[rows]), usual, known[rows])


def _paid(wares: goods.Goods, products: np.ndarray) -> np.ndarray:
    found = goods.find(wares.priced, products)
    return np.where(found < 0, np.nan, wares.paid[found] if len(wares.paid) else np.nan)


def _priced(groups: np.ndarray, paid: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    known = ~np.isnan(paid)
    return goods.mean(groups[known], paid[known], count, weights[known])


def _least(groups: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    least = np.full(count, np.inf)
    np.minimum.at(least, groups, values)
    return np.where(np.isinf(least), np.nan, least)


def _flat(lists: np.ndarray, kind: str = "float64") -> np.ndarray:
    return np.concatenate(lists).astype(kind) if len(lists) else np.empty(0, kind)


def over(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    """part / of, and NaN where there is nothing to divide by."""
    return np.divide(part, of, out=np.full(len(part), np.nan), where=of > 0)
