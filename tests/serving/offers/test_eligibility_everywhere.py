"""An offer that the night stored and that changed since is refused on every road by which it could reach a customer."""

import shutil
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from customers import clock
from customers.loading import load
from customers.reports import at_risk, exports
from serving.offers import ineligible_offers

BANDS = ("low", "medium", "high", "lapsed")
#: A customer who received every campaign but the last, and another who received them all.
CUSTOMER, OTHER = "c120", "c000"
ALWAYS = {"starts_at": "2025-01-06", "ends_at": "2026-01-06"}
#: The only offer that may be made to them: bread at a discount, by e-mail, which they allow.
LETTER = ALWAYS | {"offer_id": "letter", "categories": ["bread"], "channels": ["email"], "value": 1,
                   "value_kind": "amount"}  # fmt: skip
BREAD = [f"p{number:02d}" for number in range(0, 40, 4)]


@pytest.fixture(scope="module")
def scored_home(trained_home: Path, score_customers: Any, build_once: Callable[[str, Callable[[Path], None]], Path]
                ) -> Path:  # fmt: skip
    """A home whose night stored the letter, and nothing else, for both customers; copy it before changing it."""
    from customers.database import engine
    from customers.shop import settings

    def build(folder: Path) -> None:
        shop = settings.open_shop(shutil.copytree(trained_home, folder / "home"))
        over = {"starts_at": "2025-01-06", "ends_at": "2025-02-01"}
        names = ["milk-day", *(f"summer-{category}" for category in ("bread", "milk", "fruit", "paper"))]
        ingest(shop, "offers", *(over | {"offer_id": name, "categories": ["milk"]} for name in names), LETTER)
        ingest(shop, "consents", *(consent(name, "granted", "2025-01-06") for name in (CUSTOMER, OTHER)))
        score_customers(shop)
        engine.get_engine(shop).dispose()

    return build_once("scored_home_with_letter", build) / "home"


@pytest.fixture
def shop_api(scored_home: Path, api_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The server of a shop that contacts each customer at most once in four weeks."""
    from serving import runtime

    monkeypatch.setenv("REGULARS_CONTACT_CAP", "1")
    for api in api_for(shutil.copytree(scored_home, tmp_path / "home")):
        runtime.open_runtime(api.shop).features.apply()  # the home was copied, and Feast has absolute paths
        yield api


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
    return ["letter"] if customer in [item["customer_id"] for item in response.json()["customers"]] else []


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


def test_an_unchanged_offer_is_made_on_every_road(shop_api: Any) -> None:
    assert offers_by_road(shop_api, CUSTOMER) == EVERYWHERE
    assert refusals(shop_api, CUSTOMER) == (None, None)


# What happens after the night ---------------------------------------------------------------------------------------


def change_letter(api: Any, **changes: Any) -> None:
    ingest(api.shop, "offers", LETTER | changes)


def interact(api: Any, **fields: Any) -> None:
    at = (clock.now(api.shop) - pd.Timedelta(days=1)).isoformat()
    ingest(api.shop, "interactions", {"interaction_id": "new", "happened_at": at, "channel": "email", **fields})


def spend_budget(api: Any) -> None:
    change_letter(api, budget=1)
    interact(api, kind="redeemed", offer_id="letter", customer_id="c001")


CHANGES: dict[str, Callable[[Any], None]] = {
    "its budget is spent": spend_budget,
    "nothing that it is for is sold here": lambda api: change_letter(api, categories=["nothing yet"]),
    "all that it is for is sold out": lambda api: ingest(
        api.shop, "products", *({"product_id": product, "stock": 0} for product in BREAD)
    ),
    "it is for sensitive products, which this customer has not allowed to be looked at": lambda api: ingest(
        api.shop, "products", {"product_id": BREAD[0], "sensitive": True}
    ),
    "the customer has not allowed any of its channels": lambda api: ingest(
        api.shop, "consents", consent(CUSTOMER, "revoked", "2025-07-20")
    ),
    "it is only for those who received its campaign": lambda api: change_letter(
        api, audience="received", campaign_id="summer"
    ),
    "it is for a segment that the shop does not know": lambda api: change_letter(api, segment="families"),
    "the customer has redeemed it already": lambda api: interact(
        api, kind="redeemed", offer_id="letter", customer_id=CUSTOMER
    ),
    "the customer has been contacted as often as the shop allows": lambda api: interact(
        api, kind="sent", customer_id=CUSTOMER
    ),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_an_offer_that_changed_after_the_night_is_refused_on_every_road(shop_api: Any, reason: str) -> None:
    CHANGES[reason](shop_api)
    assert offers_by_road(shop_api, CUSTOMER) == NOWHERE
    assert refusals(shop_api, CUSTOMER) == (reason, reason)


@pytest.mark.parametrize(
    ("dates", "reason"),
    [
        ({"ends_at": "2025-07-01"}, "it has ended"),
        ({"starts_at": "2025-12-01"}, "it has not begun yet"),
    ],
)
def test_an_offer_whose_dates_changed_is_refused_on_every_road(
    shop_api: Any, dates: dict[str, str], reason: str
) -> None:
    """An offer that does not run is no row of the export of ineligible offers: it is true of every customer."""
    change_letter(shop_api, **dates)
    assert offers_by_road(shop_api, CUSTOMER) == NOWHERE
    assert refusals(shop_api, CUSTOMER) == (reason, None)


def test_an_offer_for_the_recipients_of_a_campaign_is_still_made_to_them(shop_api: Any) -> None:
    """The other customer has received the campaign: for them the contact cap does not hold either."""
    change_letter(shop_api, audience="received", campaign_id="summer")
    assert offers_by_road(shop_api, OTHER) == EVERYWHERE
    assert offers_by_road(shop_api, CUSTOMER) == NOWHERE


def test_an_offer_that_is_widened_again_is_made_again(shop_api: Any) -> None:
    change_letter(shop_api, segment="families")
    assert from_export(shop_api, CUSTOMER) == from_at_risk_answer(shop_api, CUSTOMER) == []
    change_letter(shop_api)
    assert offers_by_road(shop_api, CUSTOMER) == EVERYWHERE


def test_the_pairs_of_exports_divide_the_running_offers(shop_api: Any) -> None:
    """Of the stored offers, none is exported both as an offer and as ineligible."""
    change_letter(shop_api, audience="received", campaign_id="summer")
    ineligible = ineligible_offers.list_ineligible_offers(shop_api.shop)
    offered = exports.build_offers(shop_api.shop)
    pairs = [set(zip(table["customer_id"], table["offer_id"], strict=True)) for table in (ineligible, offered)]
    assert pairs[0]
    assert not pairs[0] & pairs[1]
