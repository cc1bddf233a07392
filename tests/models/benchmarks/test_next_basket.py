"""Rivals of the literature on a shop small enough to work them out by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.benchmarks import next_basket
from models.benchmarks.interaction_matrix import InteractionMatrix

NOW = pd.Timestamp("2025-06-01")


def histories(*rows: tuple[int, int, int]) -> InteractionMatrix:
    """Each (customer, product, days ago)."""
    frame = pd.DataFrame(rows, columns=["customer_key", "product_key", "ago"])
    return InteractionMatrix.from_purchase_days(frame.assign(day=NOW - pd.to_timedelta(frame["ago"], unit="D")), NOW)


#: 1 buys tea (10) thrice and salt (11) once; 2 tea and jam (12); 3 jam alone.
SHOP = histories((1, 10, 1), (1, 10, 8), (1, 10, 15), (1, 11, 8), (2, 10, 3), (2, 12, 3), (3, 12, 20))


def test_trips_are_counted_from_the_latest() -> None:
    assert SHOP.trip_counts.tolist() == [3, 1, 1]
    assert SHOP.trips.tolist() == [0, 1, 1, 2, 0, 0, 0]
    assert SHOP.ages.tolist() == [1, 8, 8, 15, 3, 3, 20]


def test_popularity_counts_days_ever_or_lately() -> None:
    assert SHOP.popularity().tolist() == [4, 1, 2]
    assert SHOP.popularity(7).tolist() == [2, 0, 1]


def test_a_frequency_fades_by_its_half_life() -> None:
    assert next_basket.PersonalFrequency.fit(SHOP).score_products(np.array([0])).tolist() == [[3, 1, 0]]
    faded = next_basket.PersonalFrequency.fit(SHOP, half_life=7).score_products(np.array([0]))[0]
    assert faded[1] == pytest.approx(0.5 ** (8 / 7))


def test_tifu_fades_within_groups_and_between_them() -> None:
    fitted = next_basket.TifuKnn.fit(SHOP, neighbours=1, within=0.5, between=0.1, alpha=1.0, groups=2)
    # Three baskets in two groups: the two latest and the oldest; tea is in all, salt in the second basket.
    tea = ((1 + 0.5) / 2 + 0.1 * 1) / 2
    assert fitted.score_products(np.array([0]))[0].tolist() == pytest.approx([tea, (0.5 / 2) / 2, 0])


def test_tifu_borrows_from_the_nearest_but_never_from_the_customer() -> None:
    fitted = next_basket.TifuKnn.fit(SHOP, neighbours=1, within=1.0, between=1.0, alpha=0.0, groups=1)
    assert fitted.score_products(np.array([2]))[0].tolist() == pytest.approx([1, 0, 1]), (
        "customer 2 is the nearest to 3"
    )


def test_up_cf_carries_shares_of_the_last_baskets_to_whoever_bought_alike() -> None:
    fitted = next_basket.UpCf.fit(SHOP, recency=2, asymmetry=0.5, locality=1.0)
    alike = 1 / np.sqrt(2 * 1)  # 2 and 3 share jam, of two products and one
    worth = fitted.score_products(np.array([2]))[0]
    assert worth.tolist() == pytest.approx([alike * 1, 0, 1 + alike * 1])


def test_lists_hold_what_their_name_says_and_are_filled_with_what_sells() -> None:
    shown = next_basket.rank_lists(next_basket.PersonalFrequency.fit(SHOP), SHOP, np.array([1, 3]), n=3)
    said = shown.groupby(["customer_key", "list"])["product_key"].agg(list).to_dict()
    assert said[1, "any"] == [10, 11, 12]
    assert said[1, "again"] == [10, 11]
    assert said[1, "new"] == [12]
    assert said[3, "any"] == [12, 10, 11], "tea sells better than salt"


@pytest.mark.parametrize("rival", [next_basket.ImplicitAls, next_basket.ItemKnn])
def test_who_bought_alike_is_recommended_alike(rival: type[next_basket.ImplicitAls | next_basket.ItemKnn]) -> None:
    taste = [
        (who, product, 1 + (who + product) % 9)
        for who in range(40)
        for product in range(5 * (who % 2), 5 * (who % 2) + 5)
    ]
    known = histories(*(row for row in taste if row[:2] != (0, 2)))
    settings: Any = {"factors": 2} if rival is next_basket.ImplicitAls else {}
    shown = next_basket.rank_lists(rival.fit(known, **settings), known, np.array([0]), n=1)
    assert shown.loc[shown["list"] == "new", "product_key"].tolist() == [2]


def test_every_combination_of_a_grid_is_tried() -> None:
    assert list(next_basket.parameter_grid({"a": (1, 2), "b": (3,)})) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
