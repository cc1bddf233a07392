"""An offer that the night stored and that changed since is refused on every road by which it could reach a customer."""

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from customers import clock
from customers.loading import load
from customers.reports import at_risk, exports
from serving.offers import ineligible_offers

BANDS = ("low", "medium", "high", "lapsed")
#: Received every campaign, and over the contact cap because of the last one; the customers from c100 on did not get it.
RECIPIENT = "c000"
CUSTOMERS = [f"c{number}" for number in range(120, 140)]
ALWAYS = {"starts_at": "2025-01-06", "ends_at": "2026-01-06"}
#: The only offer that may be made to them: bread at a discount, by e-mail, which they allow.
LETTER = ALWAYS | {
    "offer_id": "letter",
    "campaign_id": "summer",
    "categories": ["bread"],
    "channels": ["email"],
    "value": 1,
    "value_kind": "amount",
}
BREAD = [f"p{number:02d}" for number in range(0, 40, 4)]


@pytest.fixture(scope="module")
def shop_api(
    trained_home: Path, score_customers: Any, api_for: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The server of a shop that contacts each customer at most once in four weeks; its night stored the letter alone.

    The tests share it: each asks about a customer of its own, since an answer replaces what the night stored for one.
    """
    from customers.shop import settings

    home = shutil.copytree(trained_home, tmp_path_factory.mktemp("everywhere") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_CONTACT_CAP", "1")
        shop = settings.open_shop(home)
        over = {"starts_at": "2025-01-06", "ends_at": "2025-02-01"}
        names = ["milk-day", *(f"summer-{category}" for category in ("bread", "milk", "fruit", "paper"))]
        ingest(shop, "offers", *(over | {"offer_id": name, "categories": ["milk"]} for name in names), LETTER)
        ingest(shop, "consents", *(consent(name, "granted", "2025-01-06") for name in (RECIPIENT, *CUSTOMERS)))
        score_customers(shop)
        yield from api_for(home)


@pytest.fixture
def api(shop_api: Any) -> Iterator[Any]:
    """The shop with the letter and the products as they were at night, also after the test."""
    yield shop_api
    ingest(shop_api.shop, "offers", LETTER)
    ingest(shop_api.shop, "products", *({"product_id": product, "stock": 9, "sensitive": False} for product in BREAD))


def ingest(shop: Any, kind: str, *records: dict[str, Any]) -> None:
    result = load.ingest_records(shop, kind, records)
    assert not result.errors, result.errors


def consent(customer: str, state: str, at: str, purpose: str = "marketing_email") -> dict[str, Any]:
    return {"customer_id": customer, "purpose": purpose, "state": state, "at": at}


# The roads ----------------------------------------------------------------------------------------------------------


def from_export(api: Any, customer: str) -> list[str]:
    table = exports.build_offers(api.shop)
    return table.loc[table["customer_id"] == customer, "offer_id"].tolist()


def from_at_risk_list(api: Any, customer: str) -> list[str]:
    frame = at_risk.list_at_risk(api.shop, bands=BANDS, include_online=True)
    return frame.loc[frame["customer_id"] == customer, "suggested_offer_id"].dropna().tolist()


def from_at_risk_answer(api: Any, customer: str) -> list[str]:
    for band in BANDS:
        page = api.read(f"/v1/at-risk?limit=1000&band={band}").json()
        for item in page["items"]:
            if item["customer_id"] == customer:
                return [item["suggested_offer_id"]] if item["suggested_offer_id"] else []
    raise AssertionError(f"{customer} is in no band")


def from_scores(api: Any, customer: str) -> list[str]:
    scores = read(api, f"/v1/customers/{customer}/scores")
    return [item["offer_id"] for item in scores["scores"]["offers"]["items"]]


def from_profile(api: Any, customer: str) -> list[str]:
    return [item["offer_id"] for item in read(api, f"/v1/customers/{customer}")["scores"]["offers"]["items"]]


def from_console(api: Any, customer: str) -> list[str]:
    """The offers of the customer's page; those under "not offered, and why" come after them."""
    entry = {"key": api.keys["agent"], "to": "/"}
    signed_in = api.client.post("/sign-in", data=entry, headers={"Sec-Fetch-Site": "same-origin"},
                                follow_redirects=False)  # fmt: skip
    cookies = "; ".join(f"{name}={value}" for name, value in signed_in.cookies.items())
    api.client.cookies.clear()
    page = api.client.get(f"/customers/{customer}", headers={"Cookie": cookies})
    assert page.status_code == 200
    shown, _, _ = unescape(page.text).partition("not offered, and why")
    return ["letter"] if "<strong>letter</strong>" in shown else []


def from_answer(api: Any, customer: str) -> list[str]:
    response = api.post("/v1/offers", {"customer_ids": [customer], "n": 50})
    return [item["offer_id"] for item in response.json()["results"][0]["items"]]


def from_short_answer(api: Any, customer: str) -> list[str]:
    return [item["offer_id"] for item in read(api, f"/v1/customers/{customer}/offers?n=50")["results"][0]["items"]]


def from_audience(api: Any, customer: str) -> list[str]:
    response = api.post("/v1/audience", {"offer_id": "letter", "n": 1000})
    assert response.status_code == 200, response.text
    return ["letter"] if customer in [item["customer_id"] for item in response.json()["results"]] else []


def read(api: Any, path: str) -> dict[str, Any]:
    response = api.read(path)
    assert response.status_code == 200, response.text
    return response.json()


#: First those that read what the night stored: an answer stores its own offers in their place.
ROADS = (
    from_export,
    from_at_risk_list,
    from_at_risk_answer,
    from_scores,
    from_profile,
    from_audience,
    from_console,
    from_short_answer,
    from_answer,
)


def offers_by_road(api: Any, customer: str) -> dict[str, list[str]]:
    return {road.__name__: road(api, customer) for road in ROADS}


def refusals(api: Any, customer: str) -> tuple[str | None, str | None]:
    """The reason of the answer and that of the export of ineligible offers; None where it has no such row."""
    response = api.post("/v1/offers", {"customer_ids": [customer]})
    (result,) = response.json()["results"]
    answered = {entry["offer_id"]: entry["reason"] for entry in result["dropped"]}
    table = ineligible_offers.list_ineligible_offers(api.shop)
    exported = table[(table["customer_id"] == customer) & (table["offer_id"] == "letter")]["reason"].tolist()
    return answered.get("letter"), exported[0] if exported else None


EVERYWHERE = {road.__name__: ["letter"] for road in ROADS}
NOWHERE: dict[str, list[str]] = {road.__name__: [] for road in ROADS}


@pytest.mark.parametrize("customer", [RECIPIENT, "c120"])
def test_an_unchanged_offer_is_made_on_every_road(api: Any, customer: str) -> None:
    assert offers_by_road(api, customer) == EVERYWHERE
    assert refusals(api, customer) == (None, None)


# What happens after the night ---------------------------------------------------------------------------------------


def change_letter(api: Any, **changes: Any) -> None:
    ingest(api.shop, "offers", LETTER | changes)


def interact(api: Any, customer: str, **fields: Any) -> None:
    at = (clock.now(api.shop) - timedelta(days=1)).isoformat()
    known = {"interaction_id": f"new-{customer}", "happened_at": at, "channel": "email", "customer_id": customer}
    ingest(api.shop, "interactions", known | fields)


def spend_budget(api: Any, _customer: str) -> None:
    change_letter(api, budget=1)
    interact(api, "c001", kind="redeemed", offer_id="letter")


def sell_out(api: Any, _customer: str) -> None:
    ingest(api.shop, "products", *({"product_id": product, "stock": 0} for product in BREAD))


def cap_contacts(api: Any, customer: str) -> None:
    interact(api, customer, kind="sent", campaign_id="autumn")


#: What happens to the letter or the customer, by the reason that every road must then have.
CHANGES: dict[str, Callable[[Any, str], None]] = {
    "its budget is spent": spend_budget,
    "nothing that it is for is sold here": lambda api, _: change_letter(api, categories=["nothing yet"]),
    "all that it is for is sold out": sell_out,
    "it is for sensitive products, which this customer has not allowed to be looked at": lambda api, _: ingest(
        api.shop, "products", {"product_id": BREAD[0], "sensitive": True}
    ),
    "the customer has not allowed any of its channels": lambda api, customer: ingest(
        api.shop, "consents", consent(customer, "revoked", "2025-07-20")
    ),
    "it is only for those who received its campaign": lambda api, _: change_letter(api, audience="received"),
    "it is for a segment that the shop does not know": lambda api, _: change_letter(api, segment="families"),
    "the customer has redeemed it already": lambda api, customer: interact(
        api, customer, kind="redeemed", offer_id="letter"
    ),
    "the customer has been contacted as often as the shop allows": cap_contacts,
}


@pytest.mark.parametrize(("reason", "customer"), list(zip(CHANGES, CUSTOMERS[1:], strict=False)))
def test_an_offer_that_changed_after_the_night_is_refused_on_every_road(api: Any, reason: str, customer: str) -> None:
    assert from_export(api, customer) == ["letter"]
    CHANGES[reason](api, customer)
    assert offers_by_road(api, customer) == NOWHERE
    assert refusals(api, customer) == (reason, reason)


@pytest.mark.parametrize(
    ("customer", "dates", "reason"),
    [
        ("c131", {"ends_at": "2025-07-01"}, "it has ended"),
        ("c132", {"starts_at": "2025-12-01"}, "it has not begun yet"),
    ],
)
def test_an_offer_whose_dates_changed_is_refused_on_every_road(
    api: Any, customer: str, dates: dict[str, str], reason: str
) -> None:
    """An offer that does not run is no row of the export of ineligible offers: it is true of every customer."""
    assert from_export(api, customer) == ["letter"]
    change_letter(api, **dates)
    assert offers_by_road(api, customer) == NOWHERE
    assert refusals(api, customer) == (reason, None)


def test_an_offer_for_the_recipients_of_a_campaign_is_still_made_to_them(api: Any) -> None:
    change_letter(api, audience="received")
    assert offers_by_road(api, RECIPIENT) == EVERYWHERE
    assert offers_by_road(api, "c133") == NOWHERE


def test_an_offer_that_is_widened_again_is_made_again(api: Any) -> None:
    change_letter(api, segment="families")
    assert from_export(api, "c134") == from_at_risk_answer(api, "c134") == from_scores(api, "c134") == []
    change_letter(api)
    assert offers_by_road(api, "c134") == EVERYWHERE


def test_no_stored_offer_is_exported_as_eligible_and_as_ineligible(api: Any) -> None:
    change_letter(api, audience="received")
    tables = (ineligible_offers.list_ineligible_offers(api.shop), exports.build_offers(api.shop))
    ineligible, eligible = (set(zip(table["customer_id"], table["offer_id"], strict=True)) for table in tables)
    assert ("c135", "letter") in ineligible
    assert not ineligible & eligible
