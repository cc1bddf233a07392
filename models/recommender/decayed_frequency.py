"""Decayed personal purchase frequency: the strongest simple baseline of the recommender.

It answers where there is too little data to train on, and the recommender must beat it. On grocery baskets it is a
strong baseline (Li et al., TOIS 2023, on next-basket recommendation).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import arrays, base
from models.arrays import Flags, Floats, Ints
from models.estimators import isotonic_calibration
from models.recommender import popularity, purchase_history, ranked_lists
from models.recommender.popularity import Bestsellers
from models.recommender.purchase_history import PurchaseHistory, WindowPurchases
from models.recommender.ranked_lists import ProductFilter, RankedProducts


class DecayedFrequency:
    """Products that each customer bought most often, older purchases counting less; then the shop's best sellers.

    `half_life` is in days; `curve` maps the log of the decayed weight to the probability of a purchase within the
    window.
    """

    def __init__(
        self, bestsellers: Bestsellers, half_life: int, curve: isotonic_calibration.IsotonicCalibration
    ) -> None:
        self.bestsellers = bestsellers
        self.half_life = half_life
        self.curve = curve

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: Any = None,
        *,
        seed: int = 0,
        window_days: int = 28,
        half_life: int | None = None,
        min_buyers: int = 50,
    ) -> Self:
        """Choose the half-life (days) with the best capped NDCG@10 at the latest cutoff with an observed outcome.

        frame: a row per customer and cutoff, with columns customer_key, as_of, product_keys, last_days and
        weights_<days>d. label: for each row the products bought in the window after as_of, None where not observed.
        With fewer than min_buyers customers who bought in that window, the half-life is the one nearest 84 days (the
        best on grocery sales), and the curve that of a Poisson process of the same rate.
        """
        bestsellers = popularity.rank_bestsellers(frame, window_days=window_days)
        cutoffs = labelled_cutoffs(frame, label)
        if not cutoffs or cutoffs[0].n_buyers < min_buyers:
            chosen_half_life = half_life or _nearest_half_life(purchase_history.half_lives(frame), 84)
            return cls(bestsellers, chosen_half_life, poisson_curve(chosen_half_life, window_days))
        bought = cutoffs[0].bought
        history = purchase_history.read(
            cutoffs[0].frame, map(purchase_history.weight_column, purchase_history.half_lives(frame))
        )
        # Ties are broken by best sellers before the cutoff, not by those of the window that is predicted.
        earlier_bestsellers = popularity.rank_bestsellers(
            popularity.rows_at(frame, cutoffs[0].cutoff), window_days=window_days
        )
        chosen_half_life = half_life or choose_half_life(history, bought, earlier_bestsellers)
        return cls(bestsellers, chosen_half_life, fit_repeat_curve(history, bought, chosen_half_life, window_days))

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = ranked_lists.LISTS,
        exclude: ranked_lists.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """Rank products for every customer: columns customer_key, list, rank (from 1), product_key, score, source.

        List `again` holds products that the customer has bought, `new` the others, `any` both; score is P(purchase
        within the window). `exclude` leaves products out, for all customers or, as a mapping, for each; `only` allows
        no others. A list is shorter than n where there are not enough products.
        """
        ranked_lists.check_lists(lists)
        history, product_filter = (
            purchase_history.read(frame, [purchase_history.weight_column(self.half_life)]),
            ProductFilter(exclude, only),
        )
        repeats = self.rank_repeats(history, product_filter, n)
        fillers = self.bestsellers.fill(history, product_filter, np.full(len(history), n))
        builders = {
            "any": lambda: ranked_lists.append_list(repeats, fillers, n),
            "again": lambda: repeats,
            "new": lambda: fillers,
        }
        return ranked_lists.to_frame(history, {name: builders[name]() for name in lists})

    def rank_repeats(self, history: PurchaseHistory, product_filter: ProductFilter, n: int) -> RankedProducts:
        """Rank the n products that each customer is likeliest to buy again, with the probability of it."""
        weight = history.weights(self.half_life)
        ranking = popularity.rank_own_products(history, product_filter, n, weight, self.bestsellers)
        return ranking.calibrate(lambda weight: self.curve(np.log(np.maximum(weight, _MIN_WEIGHT))))

    def purchase_probabilities(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window): (n,)."""
        return ranked_lists.probability_of_any(self.score(frame, lists=("again", "new"), only=products), frame)

    def population_average(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: keys, and share of customers who bought each in the last window, (n,) each."""
        return self.bestsellers.products[:n], self.bestsellers.shares[:n]

    @property
    def settings(self) -> dict[str, Any]:
        """Values that `fit` has chosen, for the training record."""
        return {"products": len(self.bestsellers.products), "half_life_days": self.half_life}

    def save(self, folder: Path) -> None:
        """Write arrays.npz and habit.json into an existing folder."""
        arrays.write_arrays(folder, **self.arrays())
        base.write_json(folder / "habit.json", {"half_life_days": self.half_life})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls.from_arrays(arrays.read_arrays(folder), base.read_json(folder / "habit.json")["half_life_days"])

    def arrays(self) -> dict[str, Any]:
        """Everything that was fitted except the half-life, as named arrays."""
        bestsellers, curve = self.bestsellers, self.curve
        return {
            "products": bestsellers.products,
            "shares": bestsellers.shares,
            "again_strengths": curve.strengths,
            "again_shares": curve.shares,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], half_life: int) -> Self:
        """Rebuild the model from what `arrays` returned."""
        curve = isotonic_calibration.IsotonicCalibration(arrays["again_strengths"], arrays["again_shares"])
        return cls(Bestsellers(arrays["products"], arrays["shares"]), half_life, curve)


#: Decayed weights below this are treated as equal.
_MIN_WEIGHT = 1e-6


@dataclass(frozen=True)
class LabelledCutoff:
    """One cutoff with an observed outcome: rows of the customers that have one, and what they bought after it."""

    cutoff: pd.Timestamp
    frame: pd.DataFrame
    bought: WindowPurchases

    @property
    def n_buyers(self) -> int:
        """Number of customers who bought anything in the window."""
        return len(np.unique(self.bought.rows))


def labelled_cutoffs(
    frame: pd.DataFrame, label: Any, *, n_cutoffs: int = 1, max_customers: int = 5_000
) -> list[LabelledCutoff]:
    """The latest cutoffs with an observed outcome, oldest first, each with at most max_customers evenly spaced rows.

    frame: a row per customer and cutoff (as_of); label as in `DecayedFrequency.fit`.
    """
    if label is None:
        return []
    cells = pd.Series(list(label), dtype=object).to_numpy()
    is_observed = purchase_history.read_label(cells).is_observed
    cutoffs = frame["as_of"][is_observed].drop_duplicates().sort_values().tail(n_cutoffs)
    return [_labelled_cutoff(frame, cells, is_observed, cutoff, max_customers) for cutoff in cutoffs]


def _labelled_cutoff(
    frame: pd.DataFrame, cells: NDArray[Any], is_observed: Flags, cutoff: pd.Timestamp, max_customers: int
) -> LabelledCutoff:
    rows = np.flatnonzero((frame["as_of"] == cutoff).to_numpy() & is_observed)
    rows = rows[np.linspace(0, len(rows) - 1, min(max_customers, len(rows))).astype(np.int64)]
    return LabelledCutoff(cutoff, frame.iloc[rows], purchase_history.read_label(cells[rows]))


def choose_half_life(history: PurchaseHistory, bought: WindowPurchases, bestsellers: Bestsellers) -> int:
    """The half-life (days) whose lists of ten have the best capped NDCG; the shortest among equals."""
    half_lives = sorted(int(name.removeprefix("weights_").removesuffix("d")) for name in history.columns)
    lists = {
        days: popularity.rank_own_products(history, ProductFilter(), 10, history.weights(days), bestsellers)
        for days in half_lives
    }
    return max(half_lives, key=lambda days: ranked_lists.ndcg(lists[days], bought))


def fit_repeat_curve(
    history: PurchaseHistory, bought: WindowPurchases, half_life: int, window_days: int
) -> isotonic_calibration.IsotonicCalibration:
    """Share of products bought again within the window, as an isotonic function of the log of the decayed weight."""
    if not len(history.rows):
        return poisson_curve(half_life, window_days)
    strength = np.log(np.maximum(history.weights(half_life), _MIN_WEIGHT))
    return isotonic_calibration.fit_isotonic(strength, bought.contains(history.rows, history.products))


def poisson_curve(half_life: int, window_days: int) -> isotonic_calibration.IsotonicCalibration:
    """P(purchase within the window) if customers buy at random, at the rate that a decayed weight implies."""
    weight = np.geomspace(_MIN_WEIGHT, 100.0, 60)
    return isotonic_calibration.IsotonicCalibration(
        np.log(weight), -np.expm1(-weight * window_days * np.log(2.0) / half_life)
    )


def _nearest_half_life(half_lives: Sequence[int], days: int) -> int:
    return min(half_lives, key=lambda half_life: abs(half_life - days))
