"""Which offers may be made to whom: every rule on one small table, and the first reason in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from customers.marketing import eligibility
from customers.marketing.eligibility import REASONS, CustomerState
from customers.marketing.offer_table import build_offer_table, with_spent_budgets

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
BREAD, MILK, TEA = 1, 2, 3
PLAIN = {
    "offer_key": 1,
    "offer_id": "o1",
    "public_id": "o1",
    "campaign_id": "k1",
    "starts_at": NOON - timedelta(days=1),
    "ends_at": NOON + timedelta(days=1),
    "value": 2.0,
    "value_kind": "amount",
    "min_spend": np.nan,
    "budget": np.nan,
    "channels": [],
    "segment": None,
    "audience": "all",
    "sensitive": False,
}


def reason(offer_fields: dict[str, Any] | None = None, *, sold_out: set[int] | None = None, times: int = 0,
           request_fields: dict[str, Any] | None = None, **state_fields: Any) -> str:  # fmt: skip
    """Why this offer on bread and milk may not be made to one customer; empty where it may."""
    offers = pd.DataFrame([PLAIN | (offer_fields or {})])
    covers = pd.DataFrame({"offer_key": [1, 1], "product_key": [BREAD, MILK]})
    if state_fields.pop("for_nothing", False):
        covers = covers.head(0)
    redemption_counts = pd.Series({1: times})
    table = with_spent_budgets(build_offer_table(offers, covers, sold_out=sold_out or set()), redemption_counts)
    state = customer_state(**state_fields)
    codes = eligibility.evaluate_eligibility(table, state, now=NOON)
    return REASONS[eligibility.restrict_to_request(codes, table, state, **(request_fields or {}))[0, 0]]


def customer_state(
    *,
    channels: tuple[str, ...] = (),
    sees: bool = False,
    basket: float = np.nan,
    received: str | None = None,
    redeemed: int | None = None,
    segments: dict[str, list[int]] | None = None,
    contacted: bool = False,
) -> CustomerState:
    """The state of one customer."""
    return CustomerState(
        channels=[channels],
        allows_sensitive=np.array([sees]),
        basket_value=np.array([basket]),
        received_campaigns=pd.DataFrame([(0, received)] if received else [], columns=["row", "campaign_id"]),
        redeemed_offers=pd.DataFrame([(0, redeemed)] if redeemed else [], columns=["row", "offer_key"]),
        segments=segments or {},
        is_over_contact_cap=np.array([contacted]),
    )


def test_an_offer_to_everybody_may_be_made() -> None:
    assert reason() == ""


@pytest.mark.parametrize(
    ("offer_fields", "expected"),
    [
        ({"ends_at": NOON}, "it has ended"),
        ({"ends_at": NOON + timedelta(microseconds=1)}, ""),
        ({"starts_at": NOON}, ""),
        ({"starts_at": NOON + timedelta(microseconds=1)}, "it has not begun yet"),
    ],
)
def test_an_offer_runs_from_its_first_moment_until_before_its_last(offer_fields: dict[str, Any], expected: str) -> None:
    assert reason(offer_fields) == expected


@pytest.mark.parametrize(("times", "expected"), [(0, ""), (4, ""), (5, "its budget is spent")])
def test_a_budget_of_ten_is_spent_with_five_offers_of_two(times: int, expected: str) -> None:
    assert reason({"budget": 10.0}, times=times) == expected


def test_an_offer_is_sold_out_with_the_last_of_its_products() -> None:
    assert reason(sold_out={BREAD, TEA}) == ""
    assert reason(sold_out={BREAD, MILK}) == "all that it is for is sold out"
    assert reason(for_nothing=True) == "nothing that it is for is sold here"


def test_sensitive_offers_are_for_those_who_allow_it() -> None:
    assert "sensitive" in reason({"sensitive": True})
    assert reason({"sensitive": True}, sees=True) == ""


@pytest.mark.parametrize(
    ("made_on", "allows", "expected"),
    [
        ([], (), ""),
        (["store"], (), ""),
        (["web", "email"], (), ""),
        (["email"], (), "the customer has not allowed any of its channels"),
        (["email", "post"], ("post",), ""),
        (["sms"], ("post",), "the customer has not allowed any of its channels"),
    ],
)
def test_a_channel_needs_a_consent(made_on: list[str], allows: tuple[str, ...], expected: str) -> None:
    assert reason({"channels": made_on}, channels=allows) == expected


def test_an_offer_to_those_who_received_it() -> None:
    assert "received its campaign" in reason({"audience": "received"})
    assert "received its campaign" in reason({"audience": "received"}, received="k2")
    assert reason({"audience": "received"}, received="k1") == ""
    assert "received its campaign" in reason({"audience": "received", "campaign_id": None}, received="k1")


def test_an_offer_to_a_segment() -> None:
    assert "does not know" in reason({"segment": "regulars"})
    assert reason({"segment": "regulars"}, segments={"regulars": [0]}) == ""
    assert "not in its segment" in reason({"segment": "regulars"}, segments={"regulars": []})


@pytest.mark.parametrize(("basket", "expected"), [(20.0, ""), (19.99, "twice their usual basket"), (np.nan, "")])
def test_a_least_spend_of_forty_is_out_of_reach_of_baskets_below_twenty(basket: float, expected: str) -> None:
    assert expected in reason({"min_spend": 40.0}, basket=basket)
    assert bool(reason({"min_spend": 40.0}, basket=basket)) == bool(expected)


def test_an_offer_is_redeemed_once() -> None:
    assert "redeemed it already" in reason(redeemed=1)
    assert reason(redeemed=2) == ""


def test_an_offer_that_another_source_calls_alike_is_another_offer() -> None:
    two = pd.DataFrame([PLAIN, PLAIN | {"offer_key": 2, "public_id": "web:o1"}])
    covers = pd.DataFrame({"offer_key": [1, 2], "product_key": BREAD})
    codes = eligibility.evaluate_eligibility(
        build_offer_table(two, covers, sold_out=set()), customer_state(redeemed=2), now=NOON
    )
    assert [REASONS[code] for code in codes[0]] == ["", "the customer has redeemed it already"]


def test_a_question_may_want_one_channel() -> None:
    assert reason({"channels": ["post"]}, channels=("post",), request_fields={"channel": "post"}) == ""
    on_another = reason({"channels": ["post"]}, channels=("post", "email"), request_fields={"channel": "email"})
    assert on_another == "it is not made on this channel"
    assert reason(request_fields={"channel": "email"}) == "the customer has not allowed this channel"
    assert reason(channels=("email",), request_fields={"channel": "email"}) == ""
    assert reason(request_fields={"channel": "store"}) == ""


def test_a_question_may_leave_an_offer_out() -> None:
    assert "left out" in reason(request_fields={"exclude": ["o1"]})
    assert reason(request_fields={"exclude": ["o2"]}) == ""


def test_what_is_not_allowed_is_said_before_what_was_done() -> None:
    """Who redeemed a sensitive offer is not told so, nor is anybody else."""
    assert "sensitive" in reason({"sensitive": True, "audience": "received"}, redeemed=1)


def test_many_customers_and_offers_at_once() -> None:
    """Three offers, one of them ended, to a customer of each campaign and one of none."""
    listed = [PLAIN | {"offer_key": n, "offer_id": f"o{n}", "campaign_id": f"k{n}", "audience": "received"}
              for n in (1, 2, 3)]  # fmt: skip
    listed[2]["ends_at"] = NOON - timedelta(days=3)
    covers = pd.DataFrame({"offer_key": [1, 2, 3], "product_key": BREAD})
    table = build_offer_table(pd.DataFrame(listed), covers, sold_out=set())
    met = pd.DataFrame({"row": [0, 1, 2, 2], "campaign_id": ["k1", "k2", "k3", "unheard of"]})
    nobody = pd.DataFrame({"row": [], "offer_key": []})
    state = CustomerState([()] * 4, np.zeros(4, bool), np.full(4, np.nan), met, nobody, {})
    codes = eligibility.evaluate_eligibility(table, state, now=NOON)
    may = codes == 0
    assert may.tolist() == [[True, False, False], [False, True, False], [False, False, False], [False, False, False]]
    assert {REASONS[code] for code in codes[:, 2]} == {"it has ended"}


def test_no_offers_and_no_customers() -> None:
    none = pd.DataFrame([PLAIN]).head(0)
    covers = pd.DataFrame({"offer_key": [], "product_key": []})
    table = build_offer_table(none, covers, sold_out=set())
    assert eligibility.evaluate_eligibility(table, customer_state(), now=NOON).shape == (1, 0)


LEFT_ALONE = "the customer has been contacted as often as the shop allows"


@pytest.mark.parametrize(
    ("made_on", "received", "expected"),
    [
        (["post"], None, LEFT_ALONE),
        (["post", "email"], None, LEFT_ALONE),
        (["post", "store"], None, ""),
        ([], None, ""),
        (["post"], "k1", ""),
    ],
)
def test_who_was_contacted_often_is_left_alone(made_on: list[str], received: str | None, expected: str) -> None:
    """What they see in the shop, or hold in their hands already, is no further contact."""
    state_fields = {"channels": ("post",), "received": received, "contacted": True}
    assert reason({"channels": made_on}, **state_fields) == expected


def test_an_offer_without_channels_is_not_sent_to_who_is_left_alone() -> None:
    state_fields = {"channels": ("email",), "contacted": True}
    assert reason(request_fields={"channel": "email"}, **state_fields) == LEFT_ALONE
    assert reason(request_fields={"channel": "store"}, **state_fields) == ""
    assert reason(request_fields={"channel": "email"}, channels=("email",)) == ""


def test_two_offers_on_the_same_products_may_both_be_made() -> None:
    two = pd.DataFrame([PLAIN, PLAIN | {"offer_key": 2, "offer_id": "o2", "public_id": "o2"}])
    covers = pd.DataFrame({"offer_key": [1, 1, 2], "product_key": [BREAD, MILK, MILK]})
    table = build_offer_table(two, covers, sold_out=set())
    assert (eligibility.evaluate_eligibility(table, customer_state(), now=NOON) == 0).tolist() == [[True, True]]
