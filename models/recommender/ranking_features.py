"""Figures: what is known of a customer and a product beforehand, a column each, for those who rank products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models import kinds, shelves
from models.demand import Demand
from models.kinds import Held, Kinds
from models.shelves import Floats, Ints, Picks, Shelves
from models.tastes import Tastes

Table = dict[str, Floats]

#: Of a customer's own product: more of these never makes another purchase less likely, more of those never likelier.
#: What everybody knows beforehand holds also in the weeks before Christmas, of which last month's trees know nothing.
RISING = ("weight_", "times", "times_a_day", "product_popular", "product_lately", "product_repeated")
FALLING = ("last_days",)


@dataclass(frozen=True)
class Sheet:
    """Figures of pairs, a row each: `values` is (pairs, names)."""

    names: tuple[str, ...]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, table: Table) -> Self:
        """Columns side by side."""
        values = np.empty((len(next(iter(table.values()))), len(table)), np.float32)
        for place, column in enumerate(table.values()):
            values[:, place] = column
        return cls(tuple(table), values)

    @property
    def sense(self) -> list[int]:
        """Per column 1 where more is never worse for a customer's own product, -1 where it is never better."""
        return [1 if _is(name, RISING) else -1 if _is(name, FALLING) else 0 for name in self.names]


@dataclass(frozen=True)
class Known:
    """What is known of the shop's products at one moment, whoever asks."""

    half_lives: tuple[int, ...]
    demand: Demand
    kinds: Kinds
    tastes: Tastes

    def scene(self, stock: Shelves) -> Scene:
        """The shelves of some customers among these products."""
        return Scene(stock, self)

    def arrays(self) -> dict[str, Any]:
        """All there is to keep."""
        halves = {"half_lives": np.array(self.half_lives)}
        return {**halves, **self.demand.arrays(), **self.kinds.arrays(), **self.tastes.arrays()}

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Self:
        """The same again, from what `arrays` gave."""
        halves = tuple(int(days) for days in arrays["half_lives"])
        return cls(halves, Demand.of_arrays(arrays), Kinds.of_arrays(arrays), Tastes.of_arrays(arrays))

    @property
    def ends(self) -> tuple[int, int]:
        """The shortest and the longest half-life."""
        return self.half_lives[0], self.half_lives[-1]

    def standing(self, products: Ints, sort: str) -> Floats:
        """The share that each product has of what lately sold of its sort; NaN where the sort is unknown."""
        mine = self.kinds.of(products, sort)
        popular = np.exp(self.demand.of(products)["popular"])
        return np.where(mine < 0, np.nan, popular / np.maximum(self._sales[sort][mine + 1], 1e-12))

    @cached_property
    def _sales(self) -> dict[str, Floats]:
        """How much of each sort lately sold; that of unknown sort first."""
        popular = np.exp(self.demand.of(self.demand.products)["popular"])
        size = self.kinds.sorts + 1
        codes = {sort: self.kinds.of(self.demand.products, sort) + 1 for sort in kinds.SORTS}
        return {sort: np.asarray(np.bincount(code, popular, size), np.float64) for sort, code in codes.items()}


@dataclass(frozen=True)
class Scene:
    """The shelves of some customers, looked at among the products as they are known at one moment."""

    stock: Shelves
    known: Known

    @cached_property
    def liking(self) -> NDArray[np.float32]:
        """Each customer's taste."""
        return self.known.tastes.fold(self.stock)

    @cached_property
    def customers(self) -> Table:
        """What each customer is like, a row each."""
        return _customers(self.stock, self.known.ends)

    def held(self, sort: str, asked: Ints) -> Held:
        """What each shelf holds of each sort of these codes."""
        codes = self._codes[:, kinds.SORTS.index(sort)]
        return kinds.held(self.stock, codes, self.known.ends, self.known.kinds.sorts, asked)

    @cached_property
    def _codes(self) -> Ints:
        return self.known.kinds.all_of(self.stock.products)


def columns(half_lives: tuple[int, ...]) -> list[str]:
    """The columns of a shelf that figures are made from."""
    return ["times", "last_days", "first_days", *map(shelves.weights_name, half_lives)]


def own(scene: Scene, entries: Ints) -> Sheet:
    """Figures of some entries of the shelves: (entries, OWN)."""
    stock = scene.stock
    rows, products = stock.rows[entries], stock.products[entries]
    times, last, first = (stock.columns[name][entries] for name in ("times", "last_days", "first_days"))
    demand = scene.known.demand.of(products)
    gap = np.where(times > 1, (first - last) / np.maximum(times - 1, 1), np.nan)
    expected = (np.nan_to_num(gap) * (times - 1) + demand["gap_days"]) / np.maximum(times, 1)
    weights = {f"weight_{days}d": np.log(stock.weights(days)[entries] + 1e-3) for days in scene.known.half_lives}
    short, long = scene.known.ends
    table = {
        **weights,
        "momentum": weights[f"weight_{short}d"] - weights[f"weight_{long}d"],
        "times": times,
        "last_days": last,
        "first_days": first,
        "gap_days": gap,
        "overdue": last / np.maximum(expected, 1.0),
        "times_a_day": times / np.maximum(scene.customers["days"][rows], 1),
        "liking": scene.known.tastes.strength(scene.liking, rows, products),
        **{f"product_{name}": values for name, values in demand.items()},
        **{name: values[rows] for name, values in scene.customers.items()},
    }
    for sort in ("subcategory", "category"):
        codes = scene.known.kinds.of(products, sort)
        mine = scene.held(sort, codes).of(rows, codes)
        weight = stock.weights(long)[entries]
        table |= {
            f"{sort}_others": np.log(np.maximum(mine["long"] - weight, 0) + 1e-2),
            f"{sort}_lately": np.log(mine["lately"] + 1e-2),
            f"{sort}_share": weight / (mine["long"] + 1e-9),
            f"{sort}_last_days": mine["last_days"],
            f"{sort}_products": mine["products"],
        }
    return Sheet.of(table)


def fresh(scene: Scene, found: Picks) -> Sheet:
    """Figures of products that customers never bought, with the strengths at which they were found: (picks, FRESH)."""
    rows, products = found.rows, found.products
    best = np.full(len(scene.stock), -np.inf)
    np.maximum.at(best, rows, found.scores)
    table = {
        "strength": found.scores,
        "behind": found.scores - best[rows],
        "place": found.ranks.astype(np.float64),
        "liking": scene.known.tastes.strength(scene.liking, rows, products),
        **{f"product_{name}": values for name, values in scene.known.demand.of(products).items()},
        **{name: values[rows] for name, values in scene.customers.items()},
    }
    for sort in kinds.SORTS:
        codes = scene.known.kinds.of(products, sort)
        mine = scene.held(sort, codes).of(rows, codes)
        table |= {
            f"{sort}_standing": scene.known.standing(products, sort),
            f"{sort}_lately": np.log(mine["lately"] + 1e-2),
            f"{sort}_long": np.log(mine["long"] + 1e-2),
            f"{sort}_last_days": mine["last_days"],
            f"{sort}_products": mine["products"],
        }
    return Sheet.of(table)


def _customers(stock: Shelves, half_lives: tuple[int, int]) -> Table:
    everybody, rows = len(stock), stock.rows
    last, first, times = (stock.columns[name] for name in ("last_days", "first_days", "times"))
    short, long = (np.bincount(rows, stock.weights(days), everybody) for days in half_lives)
    size = np.bincount(rows, minlength=everybody).astype(np.float64)
    recency, tenure = np.full(everybody, np.inf), np.zeros(everybody)
    np.minimum.at(recency, rows, last)
    np.maximum.at(tenure, rows, first)
    seen = np.zeros((everybody, int(last.max(initial=0)) + 1), bool)
    seen[rows, last.astype(np.int64)] = True
    days = seen.sum(axis=1)
    return {
        "activity": np.log(short + 0.1),
        "activity_trend": np.log((short + 0.1) / (long + 0.1)),
        "shelf": size,
        "recency_days": recency,
        "tenure_days": tenure,
        "repeat_share": np.bincount(rows, times > 1, everybody) / np.maximum(size, 1),
        "tried": np.log(np.bincount(rows, first <= half_lives[0], everybody) + 1.0),
        "days": days.astype(np.float64),
    }


def _is(name: str, known: tuple[str, ...]) -> bool:
    return name in known or any(each.endswith("_") and name.startswith(each) for each in known)
