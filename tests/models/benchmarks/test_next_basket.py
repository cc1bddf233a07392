"""Published next-basket methods, on a shop small enough to compute their scores by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.benchmarks import next_basket
from models.benchmarks.interaction_matrix import InteractionMatrix

NOW = pd.Timestamp("2025-06-01")


def interactions(*rows: tuple[int, int, int]) -> InteractionMatrix:
    """The interaction matrix of rows (customer, product, days ago)."""
    frame = pd.DataFrame(rows, columns=["customer_key", "product_key", "ago"])
    return InteractionMatrix.from_purchase_days(frame.assign(day=NOW - pd.to_timedelta(frame["ago"], unit="D")), NOW)


#: Customer 1 buys tea (10) three times and salt (11) once; 2 buys tea and jam (12); 3 only jam.
SHOP = interactions((1, 10, 1), (1, 10, 8), (1, 10, 15), (1, 11, 8), (2, 10, 3), (2, 12, 3), (3, 12, 20))


def test_trips_are_numbered_from_the_latest() -> None:
    assert SHOP.trip_counts.tolist() == [3, 1, 1]
    assert SHOP.trips.tolist() == [0, 1, 1, 2, 0, 0, 0]
    assert SHOP.ages.tolist() == [1, 8, 8, 15, 3, 3, 20]


def test_popularity_counts_purchase_days_ever_or_recently() -> None:
    assert SHOP.popularity().tolist() == [4, 1, 2]
    assert SHOP.popularity(7).tolist() == [2, 0, 1]


def test_a_frequency_decays_by_its_half_life() -> None:
    assert next_basket.PersonalFrequency.fit(SHOP).score_products(np.array([0])).tolist() == [[3, 1, 0]]
    decayed = next_basket.PersonalFrequency.fit(SHOP, half_life=7).score_products(np.array([0]))[0]
    assert decayed[1] == pytest.approx(0.5 ** (8 / 7))


def test_tifu_decays_within_groups_and_between_them() -> None:
    fitted = next_basket.TifuKnn.fit(SHOP, neighbours=1, within=0.5, between=0.1, alpha=1.0, groups=2)
    # Three baskets in two groups: the two latest and the oldest. Tea is in all three, salt in the second.
    tea = ((1 + 0.5) / 2 + 0.1 * 1) / 2
    assert fitted.score_products(np.array([0]))[0].tolist() == pytest.approx([tea, (0.5 / 2) / 2, 0])


def test_tifu_adds_the_nearest_neighbours_but_never_the_customer() -> None:
    fitted = next_basket.TifuKnn.fit(SHOP, neighbours=1, within=1.0, between=1.0, alpha=0.0, groups=1)
    assert fitted.score_products(np.array([2]))[0].tolist() == pytest.approx([1, 0, 1]), (
        "customer 2 is the nearest to 3"
    )


def test_up_cf_passes_recent_purchase_shares_to_similar_customers() -> None:
    fitted = next_basket.UpCf.fit(SHOP, recency=2, asymmetry=0.5, locality=1.0)
    similarity = 1 / np.sqrt(2 * 1)  # 2 and 3 share jam, out of two products and one
    scores = fitted.score_products(np.array([2]))[0]
    assert scores.tolist() == pytest.approx([similarity * 1, 0, 1 + similarity * 1])


def test_lists_match_their_names_and_are_filled_with_bestsellers() -> None:
    ranked = next_basket.rank_lists(next_basket.PersonalFrequency.fit(SHOP), SHOP, np.array([1, 3]), n=3)
    by_list = ranked.groupby(["customer_key", "list"])["product_key"].agg(list).to_dict()
    assert by_list[1, "any"] == [10, 11, 12]
    assert by_list[1, "again"] == [10, 11]
    assert by_list[1, "new"] == [12]
    assert by_list[3, "any"] == [12, 10, 11], "tea sells better than salt"


@pytest.mark.parametrize("method", [next_basket.ImplicitAls, next_basket.ItemKnn])
def test_a_customer_is_recommended_what_similar_customers_bought(
    method: type[next_basket.ImplicitAls | next_basket.ItemKnn],
) -> None:
    purchases = [
        (customer, product, 1 + (customer + product) % 9)
        for customer in range(40)
        for product in range(5 * (customer % 2), 5 * (customer % 2) + 5)
    ]
    matrix = interactions(*(row for row in purchases if row[:2] != (0, 2)))
    settings: Any = {"factors": 2} if method is next_basket.ImplicitAls else {}
    ranked = next_basket.rank_lists(method.fit(matrix, **settings), matrix, np.array([0]), n=1)
    assert ranked.loc[ranked["list"] == "new", "product_key"].tolist() == [2]


def test_a_parameter_grid_lists_every_combination() -> None:
    assert list(next_basket.parameter_grid({"a": (1, 2), "b": (3,)})) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
