"""Exploring: so many of the places of a list go to products from below it, and the same ones whenever drawn again."""

import numpy as np
import pandas as pd
import pytest

from serving.recommendations import exploration


def listed(size: int, customers: int = 1, pinned: int = 0) -> pd.DataFrame:
    """A list of so many products for each customer: product 0 is the best."""
    rows = [(customer, "any", product, "again", product < pinned) for customer in range(customers)
            for product in range(size)]  # fmt: skip
    return pd.DataFrame(rows, columns=["customer_key", "list", "product_key", "source", "pinned"])


def shelf(customers: int, day: int = 1) -> pd.DataFrame:
    moment = pd.Timestamp(f"2025-07-{day:02d}", tz="UTC")
    return pd.DataFrame({"customer_key": range(customers), "as_of": [moment] * customers})


def drawn(size: int, share: float, n: int = 10, *, seed: int | None = 7, pinned: int = 0, customers: int = 1) -> list:
    """Product and source at every rank."""
    begins = exploration.draw_seeds(shelf(customers), seed)
    made = exploration.explore_lists(listed(size, customers, pinned), share, begins, n).sort_values(
        ["customer_key", "rank"]
    )
    assert made["rank"].tolist() == [*range(1, min(size, n) + 1)] * customers
    return list(zip(made["product_key"].tolist(), made["source"].tolist(), strict=True))


def test_without_a_share_the_best_stand_in_their_order() -> None:
    assert drawn(50, 0.0) == [(product, "again") for product in range(10)]


def test_every_fifth_place_of_a_fifth_is_explored() -> None:
    made = drawn(50, 0.2)
    assert [rank for rank, (_, source) in enumerate(made, start=1) if source == "explore"] == [5, 10]
    assert [product for product, source in made if source == "again"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert all(10 <= product < 10 + 4 * 10 for product, source in made if source == "explore")


@pytest.mark.parametrize(("n", "share", "places"), [(10, 0.05, 0), (20, 0.05, 1), (50, 0.3, 15), (1, 0.5, 0)])
def test_as_many_as_the_share_allows_and_no_more(n: int, share: float, places: int) -> None:
    assert sum(source == "explore" for _, source in drawn(300, share, n)) == places


def test_a_list_without_anything_below_it_is_not_explored() -> None:
    assert drawn(10, 0.2) == [(product, "again") for product in range(10)]
    assert drawn(4, 0.5) == [(product, "again") for product in range(4)]


def test_with_one_product_below_it_one_place_is_explored() -> None:
    assert drawn(11, 0.2) == [*((product, "again") for product in range(9)), (10, "explore")]


def test_what_is_pinned_stays_first() -> None:
    made = drawn(50, 0.2, pinned=6)
    assert made[:6] == [(product, "again") for product in range(6)]
    assert [rank for rank, (_, source) in enumerate(made, start=1) if source == "explore"] == [10]


def test_the_same_seed_draws_the_same_alone_or_among_others_and_another_draws_others() -> None:
    assert drawn(300, 0.5, customers=1) == drawn(300, 0.5, customers=40)[:10]
    assert drawn(300, 0.5, seed=7) != drawn(300, 0.5, seed=8)
    made = drawn(300, 0.5, customers=2)
    assert [each for each in made[:10] if each[1] == "explore"] != [each for each in made[10:] if each[1] == "explore"]


def test_without_a_seed_the_draw_stays_until_the_figures_change() -> None:
    one, same, later = (
        exploration.draw_seeds(shelf(2)),
        exploration.draw_seeds(shelf(2)),
        exploration.draw_seeds(shelf(2, day=2)),
    )
    assert one.tolist() == same.tolist() != later.tolist()
    assert exploration.draw_seeds(shelf(2), 7).tolist() == [7, 7]


def test_every_product_below_the_list_has_its_turn() -> None:
    """Of 1,000 customers with five places each for 40 products, each product gets its 125 but for chance."""
    made = drawn(50, 0.5, customers=1000)
    counts = np.bincount([product for product, source in made if source == "explore"])[10:]
    assert len(counts) == 40
    assert counts.sum() == 5 * 1000
    assert abs(counts - 125).max() < 5 * np.sqrt(125)
