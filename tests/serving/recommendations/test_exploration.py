"""Exploration: a share of the ranks of a list goes to products below it, and the same seed draws the same products."""

import numpy as np
import pandas as pd
import pytest

from serving.recommendations import exploration


def ranked_lists(size: int, customers: int = 1, pinned: int = 0) -> pd.DataFrame:
    """Ranked lists of `size` products, one row per customer and product; product 0 is the best."""
    rows = [(customer, "any", product, "again", product < pinned) for customer in range(customers)
            for product in range(size)]  # fmt: skip
    return pd.DataFrame(rows, columns=["customer_key", "list", "product_key", "source", "pinned"])


def histories(customers: int, day: int = 1) -> pd.DataFrame:
    as_of = pd.Timestamp(f"2025-07-{day:02d}", tz="UTC")
    return pd.DataFrame({"customer_key": range(customers), "as_of": [as_of] * customers})


def explore(size: int, share: float, n: int = 10, *, seed: int | None = 7, pinned: int = 0, customers: int = 1) -> list:
    """(product, source) at every rank."""
    seeds = exploration.draw_seeds(histories(customers), seed)
    explored = exploration.explore_lists(ranked_lists(size, customers, pinned), share, seeds, n).sort_values(
        ["customer_key", "rank"]
    )
    assert explored["rank"].tolist() == [*range(1, min(size, n) + 1)] * customers
    return list(zip(explored["product_key"].tolist(), explored["source"].tolist(), strict=True))


def test_without_a_share_the_best_products_keep_their_order() -> None:
    assert explore(50, 0.0) == [(product, "again") for product in range(10)]


def test_with_a_share_of_a_fifth_every_fifth_rank_is_explored() -> None:
    explored = explore(50, 0.2)
    assert [rank for rank, (_, source) in enumerate(explored, start=1) if source == "explore"] == [5, 10]
    assert [product for product, source in explored if source == "again"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert all(10 <= product < 10 + 4 * 10 for product, source in explored if source == "explore")


@pytest.mark.parametrize(("n", "share", "count"), [(10, 0.05, 0), (20, 0.05, 1), (50, 0.3, 15), (1, 0.5, 0)])
def test_no_more_ranks_are_explored_than_the_share_allows(n: int, share: float, count: int) -> None:
    assert sum(source == "explore" for _, source in explore(300, share, n)) == count


def test_a_list_without_products_below_it_is_not_explored() -> None:
    assert explore(10, 0.2) == [(product, "again") for product in range(10)]
    assert explore(4, 0.5) == [(product, "again") for product in range(4)]


def test_with_one_product_below_the_list_one_rank_is_explored() -> None:
    assert explore(11, 0.2) == [*((product, "again") for product in range(9)), (10, "explore")]


def test_pinned_products_stay_first() -> None:
    explored = explore(50, 0.2, pinned=6)
    assert explored[:6] == [(product, "again") for product in range(6)]
    assert [rank for rank, (_, source) in enumerate(explored, start=1) if source == "explore"] == [10]


def test_a_draw_depends_on_the_seed_and_the_customer_and_not_on_other_customers() -> None:
    assert explore(300, 0.5, customers=1) == explore(300, 0.5, customers=40)[:10]
    assert explore(300, 0.5, seed=7) != explore(300, 0.5, seed=8)
    explored = explore(300, 0.5, customers=2)
    assert [item for item in explored[:10] if item[1] == "explore"] != [
        item for item in explored[10:] if item[1] == "explore"
    ]


def test_without_a_seed_the_draw_is_the_same_until_the_features_change() -> None:
    one, same, later = (
        exploration.draw_seeds(histories(2)),
        exploration.draw_seeds(histories(2)),
        exploration.draw_seeds(histories(2, day=2)),
    )
    assert one.tolist() == same.tolist() != later.tolist()
    assert exploration.draw_seeds(histories(2), 7).tolist() == [7, 7]


def test_all_products_below_the_list_are_explored_equally_often() -> None:
    """1,000 customers with five explored ranks each for 40 products: each product is expected 125 times."""
    explored = explore(50, 0.5, customers=1000)
    counts = np.bincount([product for product, source in explored if source == "explore"])[10:]
    assert len(counts) == 40
    assert counts.sum() == 5 * 1000
    assert abs(counts - 125).max() < 5 * np.sqrt(125)
