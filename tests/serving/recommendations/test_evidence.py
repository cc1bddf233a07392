"""Every reason is true of the customer's own shelf."""

import numpy as np
import pandas as pd

from models.related_products.complements import RelatedProducts
from serving.recommendations import evidence

PHONE, CASE, FILM, PILL = 1, 2, 3, 4


def shelf(**more) -> pd.DataFrame:
    figures = {
        "customer_key": [7, 8, 9],
        "product_keys": [np.array([PHONE, PILL]), np.array([FILM]), None],
        "times": [np.array([9, 2]), np.array([1]), None],
        "last_days": [np.array([14, 3]), np.array([30]), None],
        "first_days": [np.array([110, 10]), np.array([30]), None],
    }
    return pd.DataFrame(figures | more)


def companions() -> RelatedProducts:
    pairs = [(PHONE, CASE, 5.0), (PILL, CASE, 9.0), (CASE, PHONE, 5.0), (CASE, PILL, 9.0)]
    together = pd.DataFrame(pairs, columns=["product_key", "other_key", "strength"])
    together = together.assign(together=5, visits=5, followed=0, lift=9.0)
    products = pd.DataFrame({"product_key": [1, 2, 3, 4]}).assign(category=None, subcategory=None, brand=None)
    return RelatedProducts.fit(together, products, pd.DataFrame({"product_key": [], "price": [], "sold": []}))


def grounds(*asked, **more) -> list[list[int]]:
    return list(evidence.iter_evidence(evidence.add_evidence(*asked, **more)))


def listed(*rows: tuple[int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_key", "product_key", "source"])


def test_what_they_bought_stands_with_its_figures() -> None:
    ranked = listed((7, PHONE, "again"), (8, FILM, "again"), (9, FILM, "popular"))
    assert grounds(ranked, shelf(), None) == [[9, 14, 110], [1, 30, 30], []]


def test_what_is_new_stands_with_its_strongest_companion_on_their_own_shelf() -> None:
    ranked = listed((7, CASE, "new"), (8, CASE, "new"), (9, CASE, "new"))
    assert grounds(ranked, shelf(), companions()) == [[PILL, 3], [], []]


def test_a_hidden_companion_is_passed_over_for_the_next() -> None:
    ranked = listed((7, CASE, "new"))
    assert grounds(ranked, shelf(), companions(), hidden={PILL}) == [[PHONE, 14]]
    assert grounds(ranked, shelf(), companions(), hidden={PILL}, consenting={7}) == [[PILL, 3]]


def test_a_shelf_of_before_the_first_days_were_kept_says_less() -> None:
    assert grounds(listed((7, PHONE, "again")), shelf().drop(columns="first_days"), None) == [[9, 14]]
    unknown = shelf(first_days=[None, None, None])
    assert grounds(listed((7, PHONE, "again")), unknown, None) == [[9, 14]]


def test_what_was_bought_with_it_long_ago_is_no_reason_now() -> None:
    ages = [np.array([91, 90]), np.array([30]), None]
    assert grounds(listed((7, CASE, "new")), shelf(last_days=ages), companions(), hidden={PILL}) == [[]]
    assert grounds(listed((7, CASE, "new")), shelf(last_days=ages), companions()) == [[PILL, 90]]
