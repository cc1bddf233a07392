"""The evidence of a recommendation comes from the customer's own purchase history."""

import numpy as np
import pandas as pd

from models.related_products.complements import RelatedProducts
from serving.recommendations import evidence

PHONE, CASE, FILM, PILL = 1, 2, 3, 4


def purchase_history(**replaced) -> pd.DataFrame:
    columns = {
        "customer_key": [7, 8, 9],
        "product_keys": [np.array([PHONE, PILL]), np.array([FILM]), None],
        "times": [np.array([9, 2]), np.array([1]), None],
        "last_days": [np.array([14, 3]), np.array([30]), None],
        "first_days": [np.array([110, 10]), np.array([30]), None],
    }
    return pd.DataFrame(columns | replaced)


def related_products() -> RelatedProducts:
    pairs = [(PHONE, CASE, 5.0), (PILL, CASE, 9.0), (CASE, PHONE, 5.0), (CASE, PILL, 9.0)]
    together = pd.DataFrame(pairs, columns=["product_key", "other_key", "strength"])
    together = together.assign(together=5, visits=5, followed=0, lift=9.0)
    products = pd.DataFrame({"product_key": [1, 2, 3, 4]}).assign(category=None, subcategory=None, brand=None)
    return RelatedProducts.fit(together, products, pd.DataFrame({"product_key": [], "price": [], "sold": []}))


def evidence_lists(*inputs, **options) -> list[list[int]]:
    return list(evidence.iter_evidence(evidence.add_evidence(*inputs, **options)))


def ranked_list(*rows: tuple[int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_key", "product_key", "source"])


def test_a_repeat_purchase_has_its_count_and_days_as_evidence() -> None:
    ranked = ranked_list((7, PHONE, "again"), (8, FILM, "again"), (9, FILM, "popular"))
    assert evidence_lists(ranked, purchase_history(), None) == [[9, 14, 110], [1, 30, 30], []]


def test_a_new_product_has_its_strongest_complement_in_the_history_as_evidence() -> None:
    ranked = ranked_list((7, CASE, "new"), (8, CASE, "new"), (9, CASE, "new"))
    assert evidence_lists(ranked, purchase_history(), related_products()) == [[PILL, 3], [], []]


def test_a_hidden_complement_is_skipped_for_the_next() -> None:
    ranked = ranked_list((7, CASE, "new"))
    assert evidence_lists(ranked, purchase_history(), related_products(), hidden={PILL}) == [[PHONE, 14]]
    assert evidence_lists(ranked, purchase_history(), related_products(), hidden={PILL}, consenting={7}) == [[PILL, 3]]


def test_a_history_without_first_days_gives_less_evidence() -> None:
    assert evidence_lists(ranked_list((7, PHONE, "again")), purchase_history().drop(columns="first_days"), None) == [
        [9, 14]
    ]
    unknown = purchase_history(first_days=[None, None, None])
    assert evidence_lists(ranked_list((7, PHONE, "again")), unknown, None) == [[9, 14]]


def test_a_complement_bought_long_ago_is_no_evidence() -> None:
    ages = [np.array([91, 90]), np.array([30]), None]
    assert evidence_lists(
        ranked_list((7, CASE, "new")), purchase_history(last_days=ages), related_products(), hidden={PILL}
    ) == [[]]
    assert evidence_lists(ranked_list((7, CASE, "new")), purchase_history(last_days=ages), related_products()) == [
        [PILL, 90]
    ]
