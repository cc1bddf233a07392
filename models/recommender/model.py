"""The recommender: what a customer will buy again, and what they have never bought but would.

Two stages: few products are found for each customer, their own and those to their taste, and trees rank them by
all that is known of both. The chance of a purchase within the window lets one list hold both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models import again, base, bestsellers, demand, figures, new, newcomers, shelves, tastes
from models.again import Again
from models.bestsellers import DecayedFrequency
from models.companions import Companions
from models.figures import Known, Scene
from models.kinds import Kinds
from models.new import New
from models.shelves import Floats, Ints, Picks, Rules, Shelves
from models.tastes import Tastes

#: How much the popularity of a product may count beside the customer's taste; learning chooses one.
LEANS = (0.02, 0.05, 0.1, 0.2)


#: The fewest customers of a window from whose baskets anything is learned.
ENOUGH = 50
#: Counted up whenever the figures or what is kept of them change: trees would read the wrong columns.
SHAPE = 3


class Recommender:
    """Ranks products for customers: what they buy again, what is new to them, and both in one list."""

    def __init__(self, known: Known, again: Again, new: New, companions: Companions | None = None) -> None:
        self.known = known
        self.again = again
        self.new = new
        self.companions = companions

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: Any,
        *,
        seed: int = 0,
        window_days: int = 28,
        factors: int = 48,
        iterations: int = 8,
        threads: int = 1,
        enough: int = ENOUGH,
        leans: Sequence[float] = LEANS,
        products: pd.DataFrame | None = None,
        prices: pd.DataFrame | None = None,
        together: pd.DataFrame | None = None,
    ) -> Self:
        """Learn from shelves at several moments, and from what was bought in the window after each.

        What serves is settled at the latest moment of known outcome, with products as they stood then; the products
        that serve are those of the frame's latest moment. `products` is the catalogue: product_key and the columns of
        `kinds.SORTS`; with it, `prices` and `together` the model also knows what goes with what (see Companions).
        Raises TooLittle where fewer than `enough` customers bought something in that window.
        """
        past = bestsellers.past(frame, label, moments=3)
        if not past or past[-1].buyers < enough:
            raise base.TooLittle(f"fewer than {enough} customers bought something in a window that is over")
        learn = {"seed": seed, "factors": factors, "iterations": iterations, "threads": threads}
        kinds = Kinds.read(products)

        def known(moment: Any) -> Known:
            return _known(bestsellers.at(frame, moment), kinds, window_days, learn)

        lately = past[-1].moment
        scenes = [(known(then.moment).scene(_stock(then.frame)), then.bought) for then in past]
        earlier = sum(then.moment <= lately - pd.Timedelta(days=window_days) for then in past)
        plain = DecayedFrequency.fit(frame, label, window_days=window_days, enough=0)
        popular = bestsellers.sellers(bestsellers.at(frame, lately), window_days=window_days)
        mine = again.learn(scenes, plain, popular, seed=seed, earlier=earlier)
        theirs = new.learn(scenes, popular, leans=leans, seed=seed, earlier=earlier)
        now = known(frame["as_of"].max())
        return cls(now, mine, theirs, _companions(now.tastes, products, prices, together))

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = shelves.LISTS,
        exclude: shelves.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """Ranked products for every customer: customer_key, list, rank (from 1), product_key, score, source.

        `again` holds what a customer has bought before, `new` what they have not, `any` both; score is the
        chance of a purchase within the window. `exclude` leaves products out, for all customers or, as a
        mapping, for each; `only` allows no others. A list is shorter than n where there is not enough.
        """
        shelves.check_lists(lists)
        rules = Rules(exclude, only)
        return pd.concat([self._score(part, rules, n, lists) for part in shelves.turns(frame)], ignore_index=True)

    def chances(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window), (n,).

        Far down a long list a taste promises too much, and over a whole category that adds up: nothing new is taken
        for likelier than it is for customers in general, where it sells at all.
        """
        ranked = self.score(frame, lists=("again", "new"), only=products)
        usual = self.again.plain.bestsellers.shares_of(ranked["product_key"].to_numpy(np.int64))
        capped = (ranked["source"] != "again").to_numpy() & (usual > 0)
        return shelves.any_of(
            ranked.assign(score=ranked["score"].where(~capped, ranked["score"].clip(upper=usual))), frame
        )

    def _score(self, frame: pd.DataFrame, rules: Rules, n: int, lists: Sequence[str]) -> pd.DataFrame:
        scene = self.known.scene(_stock(frame))
        made: dict[str, Picks] = {}
        if {"any", "again"} & set(lists):
            made["again"] = self.again.picks(scene, rules, n)
        if {"any", "new"} & set(lists):
            made["new"] = self._fresh(scene, rules, n)
        if "any" in lists:
            made["any"] = shelves.merge((made["again"], made["new"]), n)
        return shelves.table(scene.stock, {name: made[name] for name in lists})

    def _fresh(self, scene: Scene, rules: Rules, n: int) -> Picks:
        liked = self.new.picks(scene, rules, n)
        missing = n - np.bincount(liked.rows, minlength=len(scene.stock))
        popular = self.again.plain.bestsellers.fill(scene.stock, rules, missing, taken=liked)
        return shelves.follow(liked, popular, n)

    def typical(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: product keys, and the share of customers who bought each lately."""
        return self.again.plain.typical(n)

    @property
    def newcomers(self) -> Ints:
        """The products, rising, of which nobody's taste tells yet: they are taken for what is usual of their kind."""
        return self.known.tastes.young

    @property
    def settings(self) -> dict[str, Any]:
        """What was settled while learning and why, for the record."""
        tried = {"again": self.again.tried, "new": self.new.tried}
        return {
            **self.again.plain.settings,
            "again_by": self.again.by,
            "new_by": self.new.by,
            **{f"{name}_tried": _spoken(ways) for name, ways in tried.items()},
            "factorised_products": len(self.known.tastes.products),
            "factors": self.known.tastes.factors.shape[1],
            "regularisation": round(self.known.tastes.regularisation, 6),
            "lean": self.new.lean,
        }

    def save(self, folder: Path) -> None:
        """Write arrays.npz, recommender.json and the trees into an existing folder; nothing of any customer."""
        pairs = self.companions.arrays() if self.companions else {}
        bestsellers.write_arrays(
            folder,
            **self.known.arrays(),
            **self.again.save(folder),
            **self.new.save(folder),
            **{f"{_COMPANIONS}{name}": array for name, array in pairs.items()},
        )
        numbers = {
            "shape": SHAPE,
            "half_life_days": self.again.plain.half_life,
            "again_tried": self.again.tried,
            "new_by": self.new.by,
            "new_tried": self.new.tried,
            "lean": self.new.lean,
        }
        base.write_json(folder / "recommender.json", numbers)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        arrays, numbers = bestsellers.read_arrays(folder), base.read_json(folder / "recommender.json")
        if numbers.get("shape") != SHAPE:
            raise base.Unfit("this recommender was saved by another version of regulars; run: regulars run")
        pairs = {name.removeprefix(_COMPANIONS): part for name, part in arrays.items() if name.startswith(_COMPANIONS)}
        companions = Companions.of(pairs) if pairs else None
        ways = Again.load(folder, arrays, numbers), New.load(folder, arrays, numbers)
        return cls(Known.of(arrays), *ways, companions)


_COMPANIONS = "companions_"


def _companions(known: Tastes, products: Any, prices: Any, together: Any) -> Companions | None:
    if products is None or prices is None or together is None:
        return None
    return Companions.learn(together, products, prices, (known.products, known.factors))


def _known(frame: pd.DataFrame, kinds: Kinds, window_days: int, learn: dict[str, Any]) -> Known:
    stock, halves = _stock(frame), shelves.half_lives(frame)
    measured = demand.measure(stock, (halves[0], halves[-1]), window_days=window_days)
    known = tastes.factorise(frame, window_days=window_days, **learn)
    return Known(halves, measured, kinds, newcomers.welcome(known, stock, kinds, window_days=window_days))


def _stock(frame: pd.DataFrame) -> Shelves:
    return shelves.read(frame, figures.columns(shelves.half_lives(frame)))


def _spoken(ways: dict[str, float]) -> str:
    return ", ".join(f"{way} {ndcg:.4f}" for way, ndcg in ways.items())
