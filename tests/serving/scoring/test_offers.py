"""What offers bring, who is left alone, and the explanation where nothing can be offered at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.scoring import offers as offers_scoring

ALWAYS = {"starts_at": "2025-01-06", "ends_at": "2026-02-10"}


def offers(api: Any, *names: str, **wish: Any) -> list[dict[str, Any]]:
    response = api.post("/v1/offers", {"customer_ids": list(names), **wish})
    assert response.status_code == 200, response.text
    return response.json()["results"]


def dropped(result: dict[str, Any]) -> dict[str, str]:
    return {entry["offer_id"]: entry["reason"] for entry in result["dropped"]}


def items(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["offer_id"]: item for item in result["items"]}


# What an offer brings -------------------------------------------------------------------------------------


def test_the_gain_is_the_price_less_what_is_known_to_go_off_it(isolated_api: Any) -> None:
    """Milk costs nine tenths of its price; the cost of fruit is unknown, and so is the value of a gift."""
    milk = [f"p{n:02d}" for n in range(1, 40, 4)]
    sold = [{"product_id": name, "category": "milk", "price": "10", "cost": "9"} for name in milk]
    assert isolated_api.post("/v1/products", sold).status_code == 200
    gifts = [ALWAYS | {"offer_id": f"{of}-gift", "kind": "gift", "categories": [of]} for of in ("milk", "fruit")]
    assert isolated_api.post("/v1/catalogue/offers", gifts).json()["inserted"] == 2
    (result,) = offers(isolated_api, "c000", n=50)
    found = items(result)
    assert found["milk-gift"]["gain_basis"].startswith("price less cost; what the offer gives away is not known")
    assert found["fruit-gift"]["gain_basis"].startswith("price; neither the cost nor")
    assert found["milk-day"]["gain_basis"] == "price less cost and what the offer gives away"
    assert found["summer-fruit"]["gain_basis"].startswith("price less what the offer gives away; the cost")
    # A tenth of the price is earned on milk, and the tenth that milk day gives away is all of it.
    assert float(found["milk-day"]["expected_gain"]) == 0
    assert float(found["milk-gift"]["expected_gain"]) >= 0


def test_what_is_earned_on_an_offer() -> None:
    listed = pd.DataFrame({"offer_key": [1, 2, 3, 4], "value": [2, 50, np.nan, 1], "value_kind": ["amount", "percent",
                           None, "points"]})  # fmt: skip
    left, basis = offers_scoring._margin_after_discount(
        np.array([10.0, 10.0, 10.0, np.nan]), listed, pd.Series({1: 0.4, 3: 0.25})
    )
    np.testing.assert_allclose(left, [10 * 0.4 - 2, 10 - 10 * 0.5, 10 * 0.25, np.nan])
    assert basis[3] is None


# What goes with what was just bought ----------------------------------------------------------------------


def test_an_offer_may_be_made_because_of_what_was_just_bought(isolated_api: Any) -> None:
    """What was bought for the first time goes with every offer: for some it is the reason and takes a place."""
    from features.products import co_purchases

    names = [f"c{number:03d}" for number in range(100)]
    before = offers(isolated_api, *names, n=50)
    every = range(1, 41)
    pairs = [(one, other, 6.0, 1.0) for one in every for other in every if one != other]
    co_purchase_pairs = pd.DataFrame(pairs, columns=["product_key", "other_key", "lift", "strength"])
    co_purchases.save_co_purchases(co_purchase_pairs, isolated_api.shop.home / "features")
    whole, three = offers(isolated_api, *names, n=50), offers(isolated_api, *names, n=3)
    for was, now, few in zip(before, whole, three, strict=True):
        assert {name: item["score"] for name, item in items(now).items()} == {
            name: item["score"] for name, item in items(was).items()
        }
        related = [item for item in now["items"] if item["source"] == "related"]
        assert all(item["reason"].startswith("goes with ") and ", bought " in item["reason"] for item in related)
        assert [item["rank"] for item in few["items"]] == list(range(1, len(few["items"]) + 1))
        if related:
            assert related[0]["offer_id"] in items(few)
    assert any(item["source"] == "related" for now in whole for item in now["items"])


def test_what_was_bought_and_is_sensitive_since_is_named_no_more(isolated_api: Any, score_customers: Any) -> None:
    """All but milk becomes sensitive: of what milk goes with, door, profile and export tell only who allows it."""
    from customers.reports import exports
    from features.products import co_purchases

    names = [f"c{number:03d}" for number in range(100)]
    others = [number for number in range(40) if number % 4 != 1]
    pairs = [(other + 1, milk + 1, 6.0, 1.0) for other in others for milk in range(1, 40, 4)]
    co_purchase_pairs = pd.DataFrame(pairs, columns=["product_key", "other_key", "lift", "strength"])
    co_purchases.save_co_purchases(co_purchase_pairs, isolated_api.shop.home / "features")
    score_customers(isolated_api.shop)
    someone = next(result["customer_id"] for result in offers(isolated_api, *names, n=50)
                   if items(result)["milk-day"]["source"] == "related")  # fmt: skip

    def named() -> list[bool]:
        table = exports.build_offers(isolated_api.shop)
        mine = (table["customer_id"] == someone) & (table["offer_id"] == "milk-day")
        kept = isolated_api.read(f"/v1/customers/{someone}/scores").json()["scores"]["offers"]
        shown = (items(offers(isolated_api, someone, n=50)[0])["milk-day"], items(kept)["milk-day"],
                table[mine].to_dict("records")[0])  # fmt: skip
        return [offer["reason"].startswith("goes with p") for offer in shown]

    assert named() == [True] * 3
    sensitive = [{"product_id": f"p{number:02d}", "sensitive": True} for number in others]
    assert isolated_api.post("/v1/products", sensitive).status_code == 200
    assert named() == [False] * 3
    consent = {"customer_id": someone, "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).status_code == 200
    assert named() == [True] * 3


# Who is left alone ----------------------------------------------------------------------------------------


@pytest.fixture
def reserved(
    trained_home: Path, api_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    """A api of a shop that writes to nobody more than once in four weeks."""
    monkeypatch.setenv("REGULARS_CONTACT_CAP", "1")
    shutil.copytree(trained_home, tmp_path / "home")
    yield from api_for(tmp_path / "home")


def test_who_had_the_summer_letter_is_sent_no_other(reserved: Any) -> None:
    letter = ALWAYS | {"offer_id": "letter", "categories": ["milk"], "channels": ["post"]}
    assert reserved.post("/v1/catalogue/offers", letter).json()["inserted"] == 1
    had, had_not = offers(reserved, "c000", "c120", n=50)
    assert dropped(had)["letter"] == "the customer has been contacted as often as the shop allows"
    assert {"summer-milk", "milk-day"} <= set(items(had))
    assert "letter" in items(had_not)


# Nothing to offer -----------------------------------------------------------------------------------------


def test_where_nothing_may_be_offered_it_is_said_why(api: Any) -> None:
    nothing, some = offers(api, "c000", channel="email")[0], offers(api, "c000")[0]
    assert nothing["items"] == []
    assert nothing["nothing"].startswith("none of the 19 offers may be made: ")
    assert "it has ended (12)" in nothing["nothing"]
    assert some["nothing"] is None


def test_a_shop_without_offers_says_so() -> None:
    assert offers_scoring.explain_none(np.zeros(0, np.int8)).startswith("the shop has no offers")  # type: ignore[arg-type]


def test_an_offer_for_products_that_nobody_sells_is_not_made(isolated_api: Any) -> None:
    odd = [ALWAYS | {"offer_id": "odd", "product_ids": ["unicorn"]}]
    odd += [ALWAYS | {"offer_id": "half", "product_ids": ["unicorn", "p00"]}]
    assert isolated_api.post("/v1/catalogue/offers", odd).json()["inserted"] == 2
    (result,) = offers(isolated_api, "c000", n=50)
    assert dropped(result)["odd"] == "nothing that it is for is sold here"
    assert "half" in items(result)


def test_an_offer_is_made_from_the_first_sale_on(isolated_api: Any) -> None:
    odd = [
        ALWAYS | {"offer_id": name, "product_ids": [product]}
        for name, product in (("odd", "unicorn"), ("rare", "yeti"))
    ]
    assert isolated_api.post("/v1/catalogue/offers", odd).json()["inserted"] == 2
    assert {"odd", "rare"} <= set(dropped(offers(isolated_api, "c000", n=50)[0]))
    sale = {"order_id": "first", "customer_id": "c001", "product_id": "unicorn", "sold_at": "2025-07-24T10:00:00-04:00",
            "quantity": 1, "amount": "5.00"}  # fmt: skip
    assert isolated_api.post("/v1/transactions", sale).status_code == 200
    (result,) = offers(isolated_api, "c000", n=50)
    assert "odd" in items(result)
    assert dropped(result)["rare"] == "nothing that it is for is sold here"


def test_an_offer_that_ended_yesterday_or_is_for_nothing(isolated_api: Any) -> None:
    from datetime import timedelta

    from customers import clock

    yesterday = (clock.now(isolated_api.shop) - timedelta(days=1)).date().isoformat()
    ended = {"offer_id": "ended", "starts_at": "2025-01-06", "ends_at": yesterday, "categories": ["milk"]}
    sent = isolated_api.post("/v1/catalogue/offers", [ended, ALWAYS | {"offer_id": "empty"}]).json()
    assert sent["inserted"] == 1
    assert "neither product_ids nor categories" in str(sent)
    (result,) = offers(isolated_api, "c000")
    assert dropped(result)["ended"] == "it has ended"


@pytest.mark.parametrize("wish", [{"n": 0}, {"n": 10_000}, {"channel": "pigeon"}, {"customer_ids": []}])
def test_a_question_that_means_nothing_is_refused(api: Any, wish: dict[str, Any]) -> None:
    assert api.post("/v1/offers", {"customer_ids": ["c000"]} | wish).status_code == 422


def test_a_stranger_is_offered_what_everybody_is(api: Any) -> None:
    (result,) = offers(api, "nobody at all")
    assert (result["known"], result["fallback"], result["nothing"]) == (False, True, None)
    assert {item["gain_basis"] for item in result["items"]} == {None}
