"""Related products: substitutes, complements and up-sell, in a shop where the right ones are known."""

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
#: For each pair: how many customers bought both together, and how many bought the other on the next visit.
BOUGHT = {(PHONE, CASE): (20, 5), (PHONE, FILM): (15, 9), (PHONE, OLD_PHONE): (30, 0), (DEAR_PHONE, DEAR_CASE): (8, 0)}


def co_purchases(bought=BOUGHT, lift=10.0) -> pd.DataFrame:
    both_ways = {**bought, **{(other, one): counts for (one, other), counts in bought.items()}}
    rows = [
        (*pair, at_once, at_once, after, lift, float(at_once + after)) for pair, (at_once, after) in both_ways.items()
    ]
    names = ["product_key", "other_key", "together", "visits", "followed", "lift", "strength"]
    return pd.DataFrame(rows, columns=names)


def fit_related(co_purchase_counts=None, factors=None, catalogue=CATALOGUE) -> RelatedProducts:
    names = ["product_key", "category", "subcategory", "price", "sold"]
    products = pd.DataFrame(catalogue, columns=names).assign(brand=None)
    return RelatedProducts.fit(
        co_purchases() if co_purchase_counts is None else co_purchase_counts,
        products,
        products[["product_key", "price", "sold"]],
        factors,
    )


def related_keys(model: RelatedProducts, product: int, relation: str, n: int = 10, **more) -> list[int]:
    related = model.find_related([product], n, relation, **more)
    assert related["rank"].tolist() == list(range(1, len(related) + 1))
    return related["other_key"].tolist()


def test_complements_of_the_phone_are_a_case_and_a_film_before_another_phone() -> None:
    assert related_keys(fit_related(), PHONE, "together") == [CASE, FILM, OLD_PHONE]


def test_the_counts_behind_a_pair_are_returned() -> None:
    related = fit_related().find_related([PHONE], 1, "together")
    assert related[["product_key", "other_key", "together", "followed", "own"]].values.tolist() == [
        [PHONE, CASE, 20, 5, True]
    ]


def test_substitutes_are_of_one_subcategory_and_not_bought_together() -> None:
    assert set(related_keys(fit_related(), PHONE, "similar", 2)) == {OLD_PHONE, DEAR_PHONE}
    # Thirty customers bought the old phone together with this one, not instead of it.
    bought_apart = fit_related(
        co_purchases({pair: counts for pair, counts in BOUGHT.items() if pair != (PHONE, OLD_PHONE)})
    )
    score = {name: each.find_related([PHONE], 9, "similar").set_index("other_key")["score"][OLD_PHONE]
             for name, each in (("together", fit_related()), ("instead", bought_apart))}  # fmt: skip
    assert score["together"] < score["instead"]


def test_a_subcategory_that_is_too_small_is_filled_from_its_category() -> None:
    assert set(related_keys(fit_related(), PHONE, "similar")) == {OLD_PHONE, DEAR_PHONE, TABLET}
    assert related_keys(fit_related(), PHONE, "similar")[-1] == TABLET


def test_a_product_that_never_sold_is_no_substitute() -> None:
    assert NEW_PHONE not in related_keys(fit_related(), PHONE, "similar")


def test_upsell_is_more_expensive_in_the_same_subcategory_within_a_limit() -> None:
    assert related_keys(fit_related(), PHONE, "upsell") == [DEAR_PHONE]  # the tablet costs less than a tenth more
    assert related_keys(fit_related(), CASE, "upsell") == [DEAR_CASE]
    assert related_keys(fit_related(), DEAR_PHONE, "upsell") == []


def test_product_factors_decide_among_equal_substitutes() -> None:
    catalogue = [(key, "wine", "red", 8.0, 20) for key in (1, 2, 3)]
    factors = np.array([1, 2, 3]), np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    assert related_keys(fit_related(co_purchases({}), factors, catalogue), 1, "similar") == [3, 2]


def test_without_a_catalogue_substitutes_come_from_product_factors_alone() -> None:
    factors = np.array([1, 2, 3]), np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    bare = [(key, None, None, np.nan, 5) for key in (1, 2, 3)]
    assert related_keys(fit_related(co_purchases({}), factors, bare), 1, "similar", 1) == [3]
    assert related_keys(fit_related(co_purchases({}), None, bare), 1, "similar") == []


def test_a_product_that_never_sold_takes_the_related_products_of_its_subcategory() -> None:
    model = fit_related()
    related = model.find_related([NEW_PHONE], 2, "together")
    assert related["other_key"].tolist() == [CASE, FILM]
    assert not related["own"].any()
    assert set(related_keys(model, NEW_PHONE, "similar", 3)) == {PHONE, OLD_PHONE, DEAR_PHONE}


def test_an_excluded_product_is_replaced_by_the_next() -> None:
    assert related_keys(fit_related(), PHONE, "together", 1, exclude=[CASE]) == [FILM]
    assert DEAR_PHONE not in related_keys(fit_related(), PHONE, "similar", exclude=[DEAR_PHONE])


@pytest.mark.parametrize("relation", ["similar", "together", "upsell"])
def test_an_unknown_product_has_no_related_products(relation: str) -> None:
    assert fit_related().find_related([99], 10, relation).empty
    assert fit_related(co_purchases({}), None, []).find_related([1], 10, relation).empty


def test_every_product_has_a_list_of_its_own() -> None:
    related = fit_related().find_related([PHONE, CASE, PHONE], 1, "together")
    assert related[["product_key", "other_key"]].values.tolist() == [[PHONE, CASE], [CASE, PHONE]]


def test_a_product_outside_the_catalogue_has_complements() -> None:
    model = fit_related(co_purchases({(STUB, CASE): (9, 0)}))
    assert related_keys(model, STUB, "together") == [CASE]


def test_an_unknown_relation_is_refused() -> None:
    with pytest.raises(ValueError, match="similar, together, upsell"):
        fit_related().find_related([PHONE], 10, "cheaper")


def test_a_lift_near_one_is_no_complement() -> None:
    assert related_keys(fit_related(co_purchases(lift=1.2)), PHONE, "together") == []


def test_the_supporting_entry_is_the_strongest_complement_in_the_same_history() -> None:
    model = fit_related()
    histories = [(0, TABLET), (0, PHONE), (1, CASE), (1, PHONE), (2, TABLET), (3, STUB)]
    rows, products = (np.array(part) for part in zip(*histories, strict=True))
    recommendations = [(0, CASE), (1, FILM), (1, OLD_PHONE), (2, CASE), (3, CASE), (0, STUB)]
    supporting = model.supporting_entries(
        *(np.array(part) for part in zip(*recommendations, strict=True)), rows, products
    )
    assert supporting.tolist() == [1, 3, 3, -1, -1, -1]


def test_related_products_are_saved_and_loaded_as_arrays() -> None:
    model, buffer = fit_related(), io.BytesIO()
    np.savez(buffer, **model.arrays())
    buffer.seek(0)
    loaded = RelatedProducts.from_arrays(dict(np.load(buffer, allow_pickle=False)))
    for relation in ("similar", "together", "upsell"):
        pd.testing.assert_frame_equal(
            loaded.find_related([PHONE, CASE, NEW_PHONE], 5, relation),
            model.find_related([PHONE, CASE, NEW_PHONE], 5, relation),
        )
