"""Companions: what stands in for a product, goes with it, or is dearer of its kind, in a shop with known answers."""

import io

import numpy as np
import pandas as pd
import pytest

from models.related_products.complements import RelatedProducts

PHONE, DEAR_PHONE, OLD_PHONE, TABLET, CASE, DEAR_CASE, FILM, NEW_PHONE, STUB = range(1, 10)
CATALOGUE = [
    (PHONE, "phones", "smart", 300.0, 50),
    (DEAR_PHONE, "phones", "smart", 500.0, 20),
    (OLD_PHONE, "phones", "smart", 290.0, 30),
    (TABLET, "phones", "tablets", 320.0, 40),
    (CASE, "extras", "cases", 10.0, 60),
    (DEAR_CASE, "extras", "cases", 20.0, 10),
    (FILM, "extras", "films", 5.0, 60),
    (NEW_PHONE, "phones", "smart", 310.0, 0),
]
#: Each pair: how many customers bought both at once, how many the other first thing after.
BOUGHT = {(PHONE, CASE): (20, 5), (PHONE, FILM): (15, 9), (PHONE, OLD_PHONE): (30, 0), (DEAR_PHONE, DEAR_CASE): (8, 0)}


def pairs(bought=BOUGHT, lift=10.0) -> pd.DataFrame:
    both_ways = {**bought, **{(other, one): counts for (one, other), counts in bought.items()}}
    rows = [
        (*pair, at_once, at_once, after, lift, float(at_once + after)) for pair, (at_once, after) in both_ways.items()
    ]
    names = ["product_key", "other_key", "together", "visits", "followed", "lift", "strength"]
    return pd.DataFrame(rows, columns=names)


def learned(together=None, factors=None, catalogue=CATALOGUE) -> RelatedProducts:
    names = ["product_key", "category", "subcategory", "price", "sold"]
    told = pd.DataFrame(catalogue, columns=names).assign(brand=None)
    return RelatedProducts.fit(
        pairs() if together is None else together, told, told[["product_key", "price", "sold"]], factors
    )


def others(companions: RelatedProducts, product: int, how: str, n: int = 10, **more) -> list[int]:
    found = companions.find_related([product], n, how, **more)
    assert found["rank"].tolist() == list(range(1, len(found) + 1))
    return found["other_key"].tolist()


def test_with_the_phone_go_a_case_and_a_film_before_another_phone() -> None:
    assert others(learned(), PHONE, "together") == [CASE, FILM, OLD_PHONE]


def test_the_counts_behind_a_pair_are_told() -> None:
    found = learned().find_related([PHONE], 1, "together")
    assert found[["product_key", "other_key", "together", "followed", "own"]].values.tolist() == [
        [PHONE, CASE, 20, 5, True]
    ]


def test_similar_is_of_one_kind_and_not_bought_beside_it() -> None:
    assert set(others(learned(), PHONE, "similar", 2)) == {OLD_PHONE, DEAR_PHONE}
    # Thirty customers bought the old phone with this one and not in its place.
    apart = learned(pairs({pair: counts for pair, counts in BOUGHT.items() if pair != (PHONE, OLD_PHONE)}))
    score = {name: each.find_related([PHONE], 9, "similar").set_index("other_key")["score"][OLD_PHONE]
             for name, each in (("beside", learned()), ("instead", apart))}  # fmt: skip
    assert score["beside"] < score["instead"]


def test_a_kind_that_is_too_small_is_filled_from_its_category() -> None:
    assert set(others(learned(), PHONE, "similar")) == {OLD_PHONE, DEAR_PHONE, TABLET}
    assert others(learned(), PHONE, "similar")[-1] == TABLET


def test_what_never_sold_is_nobodys_substitute() -> None:
    assert NEW_PHONE not in others(learned(), PHONE, "similar")


def test_upsell_is_dearer_of_the_same_kind_but_not_absurdly_so() -> None:
    assert others(learned(), PHONE, "upsell") == [DEAR_PHONE]  # the tablet costs less than a tenth more
    assert others(learned(), CASE, "upsell") == [DEAR_CASE]
    assert others(learned(), DEAR_PHONE, "upsell") == []


def test_customers_of_like_taste_decide_among_equals() -> None:
    catalogue = [(key, "wine", "red", 8.0, 20) for key in (1, 2, 3)]
    factors = np.array([1, 2, 3]), np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    assert others(learned(pairs({}), factors, catalogue), 1, "similar") == [3, 2]


def test_without_any_catalogue_customers_of_like_taste_are_all_there_is() -> None:
    factors = np.array([1, 2, 3]), np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    bare = [(key, None, None, np.nan, 5) for key in (1, 2, 3)]
    assert others(learned(pairs({}), factors, bare), 1, "similar", 1) == [3]
    assert others(learned(pairs({}), None, bare), 1, "similar") == []


def test_a_product_that_never_sold_is_judged_by_its_kind() -> None:
    companions = learned()
    found = companions.find_related([NEW_PHONE], 2, "together")
    assert found["other_key"].tolist() == [CASE, FILM]
    assert not found["own"].any()
    assert set(others(companions, NEW_PHONE, "similar", 3)) == {PHONE, OLD_PHONE, DEAR_PHONE}


def test_what_is_excluded_makes_room() -> None:
    assert others(learned(), PHONE, "together", 1, exclude=[CASE]) == [FILM]
    assert DEAR_PHONE not in others(learned(), PHONE, "similar", exclude=[DEAR_PHONE])


@pytest.mark.parametrize("how", ["similar", "together", "upsell"])
def test_a_product_that_nobody_knows_has_no_companions(how: str) -> None:
    assert learned().find_related([99], 10, how).empty
    assert learned(pairs({}), None, []).find_related([1], 10, how).empty


def test_every_product_has_a_list_of_its_own() -> None:
    found = learned().find_related([PHONE, CASE, PHONE], 1, "together")
    assert found[["product_key", "other_key"]].values.tolist() == [[PHONE, CASE], [CASE, PHONE]]


def test_what_is_said_of_a_product_that_the_catalogue_does_not_list() -> None:
    companions = learned(pairs({(STUB, CASE): (9, 0)}))
    assert others(companions, STUB, "together") == [CASE]


def test_an_unknown_question_is_refused() -> None:
    with pytest.raises(ValueError, match="similar, together, upsell"):
        learned().find_related([PHONE], 10, "cheaper")


def test_hardly_more_than_chance_is_no_company() -> None:
    assert others(learned(pairs(lift=1.2)), PHONE, "together") == []


def test_the_reason_is_the_strongest_companion_on_the_same_shelf() -> None:
    companions = learned()
    shelves = [(0, TABLET), (0, PHONE), (1, CASE), (1, PHONE), (2, TABLET), (3, STUB)]
    rows, products = (np.array(part) for part in zip(*shelves, strict=True))
    picks = [(0, CASE), (1, FILM), (1, OLD_PHONE), (2, CASE), (3, CASE), (0, STUB)]
    because = companions.supporting_entries(*(np.array(part) for part in zip(*picks, strict=True)), rows, products)
    assert because.tolist() == [1, 3, 3, -1, -1, -1]


def test_companions_live_as_arrays() -> None:
    companions, kept = learned(), io.BytesIO()
    np.savez(kept, **companions.arrays())
    kept.seek(0)
    again = RelatedProducts.from_arrays(dict(np.load(kept, allow_pickle=False)))
    for how in ("similar", "together", "upsell"):
        pd.testing.assert_frame_equal(
            again.find_related([PHONE, CASE, NEW_PHONE], 5, how),
            companions.find_related([PHONE, CASE, NEW_PHONE], 5, how),
        )
