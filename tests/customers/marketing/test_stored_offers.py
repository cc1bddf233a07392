"""Only stored offers that may still be made are exported, and suggested to customers at risk."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from customers import clock
from customers.ledger import interactions
from customers.loading import load as loading_load
from customers.loading.load import LoadResult
from customers.marketing import offers, stored_offers
from customers.people import lookup
from customers.privacy import consents
from customers.reports import at_risk, exports
from customers.scores import score_store
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]

# The last sale was on the 20th: in this shop it is the beginning of the 21st.
SALE = "1,anna,bread,2017-11-20T10:00Z,1,2\n2,ben,milk,2017-11-20T10:00Z,1,2\n"
OFFERS = (
    "offer_id,starts_at,ends_at,channels,value,value_kind,budget,product_ids\n"
    "loaf,2017-11-01,2018-01-01,email;sms,5,amount,10,bread\n"
    "cream,2017-11-01,2018-01-01,store,,,,milk\n"
)
REDEMPTION_HEADER = "interaction_id,customer_id,happened_at,kind,offer_id\n"
CONSENT_HEADER = "customer_id,purpose,state,at\n"


@pytest.fixture
def bakery(corner_shop: Shop, load_lines: Load, load_text: Load) -> Shop:
    """A shop whose night of the 21st stored two offers each for Anna and Ben, who both may be contacted by e-mail."""
    corner_shop = replace(corner_shop, clock="last-sale")
    load_lines(corner_shop, SALE)
    load_text(corner_shop, "offers", OFFERS)
    yes = "".join(f"{name},marketing_email,granted,2017-11-01\n" for name in ("anna", "ben"))
    load_text(corner_shop, "consents", CONSENT_HEADER + yes)
    store_scores(corner_shop, clock.now(corner_shop))
    return corner_shop


def store_scores(shop: Shop, as_of: datetime) -> None:
    """The scores of a night: both customers are at risk, and both are likeliest to redeem the loaf."""
    keys = lookup.find_keys(shop, ["anna", "ben"]).values()
    offer_rows = offers.load_catalogue(shop).offers.set_index("offer_id")["offer_key"]
    items = [[int(offer_rows[name]), p, None, ""] for name, p in (("loaf", 0.4), ("cream", 0.2))]
    for model, detail in (("offers", {"items": items}), ("churn", {"band": "high"})):
        run = score_store.begin_run(shop, model, 1, as_of)
        score_store.write_scores(shop, run, [(key, 0.5, json.dumps(detail)) for key in keys])
        score_store.finish_run(shop, run)


def exported_offers(shop: Shop, as_of: datetime | None = None) -> dict[str, list[str]]:
    """The exported offers of each customer; the at-risk list suggests the first."""
    table = exports.build_offers(shop, as_of=as_of)
    by_customer = {name: list(rows) for name, rows in table.groupby("customer_id")["offer_id"]}
    suggested = (
        at_risk.list_at_risk(shop, as_of=as_of).set_index("customer_id")["suggested_offer_id"].dropna().to_dict()
    )
    assert suggested == {name: rows[0] for name, rows in by_customer.items()}
    return by_customer


BOTH = ["loaf", "cream"]


def test_what_the_night_found_is_named_while_nothing_has_changed(bakery: Shop) -> None:
    assert exported_offers(bakery) == exported_offers(bakery, clock.now(bakery)) == {"anna": BOTH, "ben": BOTH}


def test_who_says_no_to_the_channel_is_made_the_offer_no_more(bakery: Shop, load_text: Load) -> None:
    """Nobody has to allow what is made in the store; and another channel of the offer is as good."""
    load_text(bakery, "consents", CONSENT_HEADER + "anna,marketing_email,revoked,2017-11-20\n")
    assert exported_offers(bakery) == exported_offers(bakery, clock.now(bakery)) == {"anna": ["cream"], "ben": BOTH}
    load_text(bakery, "consents", CONSENT_HEADER + "anna,marketing_sms,granted,2017-11-20\n")
    assert exported_offers(bakery) == {"anna": BOTH, "ben": BOTH}


def test_an_offer_redeemed_since_the_night_is_made_no_more(bakery: Shop, load_text: Load) -> None:
    load_text(bakery, "interactions", REDEMPTION_HEADER + "1,anna,2017-11-22T10:00Z,redeemed,cream\n")
    assert (
        exported_offers(bakery)
        == exported_offers(bakery, datetime(2017, 11, 20, 23, tzinfo=UTC))
        == {"anna": ["loaf"], "ben": BOTH}
    )


def test_an_offer_on_what_is_sold_out_is_made_no_more(bakery: Shop, load_text: Load) -> None:
    load_text(bakery, "products", "product_id,stock\nmilk,0\n")
    assert exported_offers(bakery) == {"anna": ["loaf"], "ben": ["loaf"]}
    load_text(bakery, "products", "product_id,stock\nmilk,3\n")
    assert exported_offers(bakery) == {"anna": BOTH, "ben": BOTH}


def test_a_budget_of_ten_is_spent_when_two_have_redeemed_five(bakery: Shop, load_text: Load) -> None:
    """Also for Ben, who has redeemed nothing: others have had all there was."""
    load_text(bakery, "customers", "customer_id\ncora\ndora\n")
    load_text(bakery, "interactions", REDEMPTION_HEADER + "1,cora,2017-11-19,redeemed,loaf\n")
    assert exported_offers(bakery) == {"anna": BOTH, "ben": BOTH}
    load_text(bakery, "interactions", REDEMPTION_HEADER + "2,dora,2017-11-19,redeemed,loaf\n")
    assert exported_offers(bakery) == {"anna": ["cream"], "ben": ["cream"]}


def test_an_offer_that_has_ended_since_is_made_no_more(bakery: Shop, load_lines: Load) -> None:
    as_of = clock.now(bakery)
    load_lines(bakery, "9,ben,milk,2017-12-31T12:00Z,1,2\n")
    assert exported_offers(bakery) == {}
    # But of the day of the night itself it is true that they ran, however late it is asked for.
    assert exported_offers(bakery, as_of) == {"anna": BOTH, "ben": BOTH}


CONTACT_HEADER = "interaction_id,customer_id,happened_at,channel,kind,campaign_id\n"


def test_who_was_written_to_often_enough_since_the_night_is_written_to_no_more(bakery: Shop, load_text: Load) -> None:
    """What is made in the store needs no letter; and two loads of one letter are one contact."""
    capped_shop = replace(bakery, contact_cap=2, contact_days=14)
    letters = "1,anna,2017-11-19T09:00Z,email,sent,xmas\n2,anna,2017-11-19T17:00Z,email,received,xmas\n"
    load_text(bakery, "interactions", CONTACT_HEADER + letters)
    assert exported_offers(capped_shop) == {"anna": BOTH, "ben": BOTH}
    load_text(bakery, "interactions", CONTACT_HEADER + "3,anna,2017-11-20T09:00Z,sms,sent,\n")
    assert exported_offers(capped_shop) == {"anna": ["cream"], "ben": BOTH}
    assert exported_offers(bakery) == {"anna": BOTH, "ben": BOTH}, "a shop without a cap counts nothing"
    assert exported_offers(replace(capped_shop, contact_days=1)) == {"anna": BOTH, "ben": BOTH}, (
        "the first was two days ago"
    )


def test_a_campaign_that_has_reached_somebody_is_no_further_contact(bakery: Shop, load_text: Load) -> None:
    load_text(bakery, "offers", OFFERS.replace("offer_id", "offer_id,campaign_id").replace("loaf,", "loaf,bread-week,")
            .replace("cream,", "cream,,"))  # fmt: skip
    load_text(bakery, "interactions", CONTACT_HEADER + "1,anna,2017-11-20T09:00Z,email,sent,bread-week\n"
            "2,ben,2017-11-20T09:00Z,email,sent,other\n")  # fmt: skip
    assert exported_offers(replace(bakery, contact_cap=1)) == {"anna": BOTH, "ben": ["cream"]}


def test_of_a_day_gone_by_only_the_letters_of_before_count(bakery: Shop, load_text: Load) -> None:
    then = clock.now(bakery)
    store_scores(bakery, then + timedelta(days=1))
    load_text(bakery, "interactions", CONTACT_HEADER + "1,anna,2017-11-21T09:00Z,email,sent,\n")
    capped_shop = replace(bakery, contact_cap=1)
    assert exported_offers(capped_shop, then) == {"anna": BOTH, "ben": BOTH}
    assert exported_offers(capped_shop, then + timedelta(days=1)) == {"anna": ["cream"], "ben": BOTH}


def test_a_day_gone_by_is_shown_as_it_was_known_then(bakery: Shop, load_text: Load) -> None:
    """But for what a customer has not allowed: that is named of no day."""
    then = clock.now(bakery)
    store_scores(bakery, then + timedelta(days=1))
    load_text(bakery, "interactions", REDEMPTION_HEADER + "1,anna,2017-11-21T10:00Z,redeemed,cream\n")
    load_text(bakery, "products", "product_id,stock\nmilk,0\n")
    assert exported_offers(bakery, then) == {"anna": BOTH, "ben": BOTH}
    assert exported_offers(bakery, then + timedelta(days=1)) == {"anna": ["loaf"], "ben": ["loaf"]}
    load_text(bakery, "consents", CONSENT_HEADER + "ben,marketing_email,revoked,2017-11-20\n")
    assert exported_offers(bakery, then) == {"anna": BOTH, "ben": ["cream"]}


OFFERS_IN_FULL = "offer_id,starts_at,ends_at,channels,product_ids,campaign_id,audience,segment\n"


@pytest.mark.parametrize(
    "loaf",
    [
        "2017-11-01,2018-01-01,email,bread,xmas,received,",
        "2017-11-01,2018-01-01,email,bread,,,families",
        "2017-11-01,2018-01-01,email,cake,,,",
        "2017-12-01,2018-01-01,email,bread,,,",
    ],
    ids=["to recipients", "to a segment", "on nothing that is sold", "not begun"],
)
def test_an_offer_that_was_narrowed_since_the_night_is_made_no_more(bakery: Shop, load_text: Load, loaf: str) -> None:
    load_text(bakery, "offers", f"{OFFERS_IN_FULL}loaf,{loaf}\n")
    assert (
        exported_offers(bakery) == exported_offers(bakery, clock.now(bakery)) == {"anna": ["cream"], "ben": ["cream"]}
    )


def test_an_offer_to_the_recipients_of_a_campaign_is_made_to_them_alone(bakery: Shop, load_text: Load) -> None:
    """Of a past night, to those who had received it by then."""
    then = clock.now(bakery)
    load_text(bakery, "offers", f"{OFFERS_IN_FULL}loaf,2017-11-01,2018-01-01,email,bread,xmas,received,\n")
    load_text(bakery, "interactions", CONTACT_HEADER + "1,anna,2017-11-20T09:00Z,email,received,xmas\n")
    assert exported_offers(bakery) == {"anna": BOTH, "ben": ["cream"]}
    store_scores(bakery, then + timedelta(days=1))
    load_text(bakery, "interactions", CONTACT_HEADER + "2,ben,2017-11-21T09:00Z,email,received,xmas\n")
    assert exported_offers(bakery, then) == {"anna": BOTH, "ben": ["cream"]}
    assert exported_offers(bakery, then + timedelta(days=1)) == {"anna": BOTH, "ben": BOTH}


def test_customers_are_judged_in_batches(bakery: Shop, load_text: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load_text(bakery, "consents", CONSENT_HEADER + "anna,marketing_email,revoked,2017-11-20\n")
    load_text(bakery, "interactions", REDEMPTION_HEADER + "1,ben,2017-11-20T10:00Z,redeemed,cream\n")
    expected = {"anna": ["cream"], "ben": ["loaf"]}
    assert exported_offers(bakery) == expected
    monkeypatch.setattr(stored_offers, "BATCH_SIZE", 1)
    assert exported_offers(bakery) == expected


def test_an_offer_that_begins_or_ends_is_counted(bakery: Shop) -> None:
    counts = [stored_offers.count_begun_and_ended(replace(bakery, clock=at))
              for at in ("2017-10-31", "2017-11-02", "2018-01-02")]  # fmt: skip
    assert counts == [(0, 0), (2, 0), (2, 2)]


def test_nothing_found_is_nothing_made(bakery: Shop) -> None:
    none = pd.DataFrame(columns=["customer_key", "offer_key"])
    assert stored_offers.is_still_eligible(bakery, none).tolist() == []
    unknown = pd.DataFrame({"customer_key": [1], "offer_key": [99]})
    assert stored_offers.is_still_eligible(bakery, unknown).tolist() == [False]


def test_offers_in_yen_are_not_weighed_against_euros(corner_shop: Shop) -> None:
    """A least spend of 1,000 yen is no 1,000 euros, and 500 yen off is no 500 euros."""
    record = {"offer_id": "1", "starts_at": "2017-11-01", "ends_at": "2017-12-01", "product_ids": ["tea"],
            "min_spend": 1000, "budget": 9000, "value": 500, "value_kind": "amount"}  # fmt: skip
    in_percent = {"offer_id": "2", "value": 10, "value_kind": "percent", "currency": "JPY"}
    loading_load.ingest_records(
        corner_shop, "offers", [record | {"currency": "JPY"}, record | in_percent, record | {"offer_id": "3"}]
    )
    offer_rows = offers.load_catalogue(corner_shop).offers
    assert offer_rows[["min_spend", "budget", "value"]].fillna(-1).to_numpy().tolist() == [
        [-1, -1, -1],
        [-1, -1, 10],
        [1000, 9000, 500],
    ]


def test_every_channel_is_open_or_asks_for_a_consent() -> None:
    assert {*consents.CONSENT_CHANNELS, *consents.CONSENT_FREE_CHANNELS} == set(interactions.CHANNELS)
    assert not {*consents.CONSENT_CHANNELS} & {*consents.CONSENT_FREE_CHANNELS}
