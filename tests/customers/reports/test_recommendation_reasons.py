"""Reason texts of recommendations: written from the evidence, and naming a sensitive product only with consent."""

import pytest

from customers.catalogue import products
from customers.loading import load
from customers.people import lookup
from customers.reports import recommendation_reasons


@pytest.mark.parametrize(
    ("times", "last", "first", "reason"),
    [
        (9, 14, 14 + 8 * 12, "bought 9 times, usually every 12 days, last 14 days ago"),
        (3, 0, 2, "bought 3 times, usually every day, last today"),
        (3, 1, 6, "bought 3 times, usually every 2 days, last yesterday"),  # (6 - 1) / 2 = 2.5
        (2, 1, 30, "bought twice, last yesterday"),
        (1, 30, 30, "bought once, 30 days ago"),
        (9, 14, float("nan"), "bought 9 times, last 14 days ago"),
        (0, 0, 0, "bought before"),
    ],
)
def test_the_reason_of_a_repeat_purchase_gives_its_frequency(
    times: float, last: float, first: float, reason: str
) -> None:
    assert recommendation_reasons.repeat_reason(times, last, first) == reason


@pytest.fixture
def film_shop(corner_shop, tmp_path):
    (tmp_path / "products.csv").write_text("product_id,name,sensitive\nphone,iFon 3,false\npill,Pill,true\n")
    (tmp_path / "customers.csv").write_text("customer_id\nann\nben\n")
    (tmp_path / "consents.csv").write_text("customer_id,purpose,state,at\nben,profiling_sensitive,granted,2024-01-01\n")
    for kind in ("products", "customers", "consents"):
        load.load_files(corner_shop, kind, [tmp_path / f"{kind}.csv"])
    return corner_shop


def test_the_reason_of_a_discovery_names_what_it_goes_with(film_shop) -> None:
    phone = products.find_keys(film_shop, ["phone"])["phone"]
    assert recommendation_reasons.product_reasons(
        film_shop, [(1, "new", [phone, 3]), (1, "new", []), (1, "popular", [])]
    ) == [
        "often bought with iFon 3, which they bought 3 days ago",
        "customers with similar baskets buy it",
        "sells best in the shop",
    ]


def test_a_sensitive_product_is_named_only_with_consent(film_shop) -> None:
    pill = products.find_keys(film_shop, ["pill"])["pill"]
    people = lookup.find_keys(film_shop, ["ann", "ben"])
    assert recommendation_reasons.product_reasons(
        film_shop, [(people["ann"], "new", [pill, 1]), (people["ben"], "new", [pill, 1])]
    ) == [
        "customers with similar baskets buy it",
        "often bought with Pill, which they bought yesterday",
    ]


def test_a_reason_stored_as_text_is_returned_unchanged(film_shop) -> None:
    assert recommendation_reasons.product_reasons(film_shop, [(1, "again", ["bought 3 times, last today"])]) == [
        "bought 3 times, last today"
    ]


def test_an_offer_names_the_sensitive_product_it_goes_with_only_with_consent(film_shop) -> None:
    pill, phone = (products.find_keys(film_shop, [name])[name] for name in ("pill", "phone"))
    people = lookup.find_keys(film_shop, ["ann", "ben"])
    evidence = [(people[name], [product, 3]) for name in ("ann", "ben") for product in (pill, phone)]
    assert recommendation_reasons.offer_reasons(film_shop, [*evidence, (people["ann"], "it is made to everybody")]) == [
        "it is for something that they have not bought yet", "goes with iFon 3, bought 3 days ago",
        "goes with Pill, bought 3 days ago", "goes with iFon 3, bought 3 days ago",
        "it is made to everybody",  # stored as text
    ]  # fmt: skip
