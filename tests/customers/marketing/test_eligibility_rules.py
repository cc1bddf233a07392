"""Every rule of eligibility alone: all pairs at once and given pairs agree, and both agree with a plain loop."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from customers.ledger.interactions import CHANNELS
from customers.marketing import eligibility
from customers.marketing.eligibility import (
    MAX_SPEND_RATIO,
    REQUEST_RULES,
    RULES,
    CandidatePairs,
    CustomerState,
    OfferRequest,
    Rule,
)
from customers.marketing.offer_table import OfferTable, build_offer_table, with_spent_budgets
from customers.privacy.consents import CONSENT_CHANNELS, CONSENT_FREE_CHANNELS

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
SEEDS = range(12)
CAMPAIGNS = ("spring", "summer", "unused")
SEGMENTS = ("families", "students", "closed")
REQUESTS = (
    OfferRequest(),
    OfferRequest("email", ["o1", "o2"]),
    OfferRequest("store", ["nothing"]),
    OfferRequest("sms"),
)


def choose(rng: np.random.Generator, values: tuple[Any, ...]) -> Any:
    return values[rng.integers(len(values))]


def some_of(rng: np.random.Generator, names: tuple[str, ...], share: float) -> list[str]:
    return [name for name in names if rng.random() < share]


def random_table(rng: np.random.Generator) -> OfferTable:
    """Up to nine offers of every kind, in random order of their keys."""
    count = int(rng.integers(0, 10))
    rows = [
        {
            "offer_key": int(key),
            "public_id": f"o{key}",
            "campaign_id": choose(rng, (None, *CAMPAIGNS)),
            "starts_at": NOON + timedelta(days=int(rng.integers(-20, 3))),
            "ends_at": NOON + timedelta(days=int(rng.integers(-2, 20))),
            "value": choose(rng, (np.nan, 1.0, 5.0)),
            "value_kind": choose(rng, ("amount", "percent", None)),
            "min_spend": choose(rng, (np.nan, 10.0, 40.0)),
            "budget": choose(rng, (np.nan, 5.0)),
            "channels": some_of(rng, CHANNELS, 0.15),
            "segment": choose(rng, (None, None, *SEGMENTS)),
            "audience": choose(rng, ("all", "received")),
            "sensitive": rng.random() < 0.3,
        }
        for key in rng.permutation(np.arange(1, count + 1))
    ]
    offers = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["offer_key", "public_id", *OFFER_COLUMNS])
    covered = [(key, product) for key in offers["offer_key"] for product in range(5) if rng.random() < 0.3]
    covers = pd.DataFrame(covered, columns=["offer_key", "product_key"]).astype("int64")
    table = build_offer_table(offers.astype(TYPES), covers, sold_out={0, 1, 2})
    return with_spent_budgets(table, pd.Series({1: 1, 2: 3, 3: 9}))


TYPES = {
    "offer_key": "int64",
    "starts_at": "datetime64[us, UTC]",
    "ends_at": "datetime64[us, UTC]",
    "value": "float64",
    "min_spend": "float64",
    "budget": "float64",
    "sensitive": "bool",
}
OFFER_COLUMNS = [*[name for name in TYPES if name != "offer_key"], "campaign_id", "value_kind", "channels", "segment",
                 "audience"]  # fmt: skip


def random_state(rng: np.random.Generator) -> CustomerState:
    """Up to seven customers; some received, redeemed, allow and belong to what no offer has."""
    count = int(rng.integers(0, 8))
    received = [(row, name) for row in range(count) for name in (*CAMPAIGNS, "another") if rng.random() < 0.4]
    redeemed = [(row, key) for row in range(count) for key in range(12) if rng.random() < 0.2]
    return CustomerState(
        channels=[some_of(rng, CONSENT_CHANNELS, 0.4) for _ in range(count)],
        allows_sensitive=rng.random(count) < 0.5,
        basket_value=rng.choice([np.nan, 3.0, 5.0, 30.0], count),
        received_campaigns=pd.DataFrame(received, columns=["row", "campaign_id"]),
        redeemed_offers=pd.DataFrame(redeemed, columns=["row", "offer_key"]),
        segments={name: np.flatnonzero(rng.random(count) < 0.5).tolist() for name in some_of(rng, SEGMENTS[:2], 0.7)},
        is_over_contact_cap=choose(rng, (None, rng.random(count) < 0.5, np.zeros(count, bool))),
    )


def random_world(seed: int) -> tuple[OfferTable, CustomerState]:
    rng = np.random.default_rng(seed)
    return random_table(rng), random_state(rng)


def random_pairs(seed: int, table: OfferTable, state: CustomerState) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of some pairs, some of them twice, in no order."""
    rng = np.random.default_rng(seed + 1_000)
    count = 60 if len(state) and len(table.offers) else 0
    return (
        rng.integers(0, max(len(state), 1), count).astype(np.int64),
        rng.integers(0, max(len(table.offers), 1), count).astype(np.int64),
    )


def flags(rule: Rule[Any], pairs: CandidatePairs, circumstance: Any) -> np.ndarray:
    return np.broadcast_to(rule.applies(pairs, circumstance), pairs.shape)


ALL_RULES = [(rule, (NOON,)) for rule in RULES] + [(rule, REQUESTS) for rule in REQUEST_RULES]
NAMES = [f"{rule.code} {'request' if rule in REQUEST_RULES else 'always'}" for rule, _ in ALL_RULES]


@pytest.mark.parametrize(("rule", "circumstances"), ALL_RULES, ids=NAMES)
def test_a_rule_gives_each_pair_the_flag_of_its_cell(rule: Rule[Any], circumstances: tuple[Any, ...]) -> None:
    outcomes = set()
    for seed in SEEDS:
        table, state = random_world(seed)
        rows, columns = random_pairs(seed, table, state)
        for circumstance in circumstances:
            grid = flags(rule, CandidatePairs.all_pairs(table, state), circumstance)
            assert grid.shape == (len(state), len(table.offers))
            pairs = flags(rule, CandidatePairs(table, state, rows, columns), circumstance)
            assert pairs.tolist() == grid[rows, columns].tolist()
            outcomes |= set(pairs.tolist())
    assert outcomes == {True, False}, "the random worlds test this rule"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_recheck_gives_the_dense_codes_but_for_the_rules_that_are_not_rechecked(seed: int) -> None:
    table, state = random_world(seed)
    rows, columns = random_pairs(seed, table, state)
    codes = eligibility.recheck_pairs(table, state, rows, columns, now=NOON)
    # Without a minimum spend, the one rule that is not rechecked, both questions are the same.
    unlimited = CustomerState(**{**vars(state), "basket_value": np.full(len(state), np.nan)})
    dense = eligibility.evaluate_eligibility(table, unlimited, now=NOON)
    assert codes.tolist() == dense[rows, columns].tolist()
    assert [rule.code for rule in RULES if not rule.rechecked] == [11]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_rules_agrees_with_a_plain_loop(seed: int) -> None:
    table, state = random_world(seed)
    codes = eligibility.evaluate_eligibility(table, state, now=NOON)
    expected = [[first_code(table, state, row, column) for column in range(len(table.offers))]
                for row in range(len(state))]  # fmt: skip
    assert codes.tolist() == expected
    for request in REQUESTS:
        narrowed = eligibility.restrict_to_request(
            codes, table, state, channel=request.channel, exclude=request.excluded_ids
        )
        assert narrowed.tolist() == [
            [code or request_code(table, state, row, column, request) for column, code in enumerate(line)]
            for row, line in enumerate(expected)
        ]


def first_code(table: OfferTable, state: CustomerState, row: int, column: int) -> int:
    """The rules for one customer and one offer, written as one would say them."""
    offer, channels = table.offers.iloc[column], set(table.offers["channels"].iloc[column])
    is_open = bool(channels & set(CONSENT_FREE_CHANNELS))
    received, segment = has_received(table, state, row, column), offer["segment"]
    refusals = [
        offer["ends_at"] <= NOON,
        offer["starts_at"] > NOON,
        table.is_budget_spent[column],
        table.has_no_products[column],
        table.is_sold_out[column],
        offer["sensitive"] and not state.allows_sensitive[row],
        bool(channels) and not channels & {*state.channels[row], *CONSENT_FREE_CHANNELS},
        offer["audience"] == "received" and not received,
        pd.notna(segment) and segment not in state.segments,
        pd.notna(segment) and row not in state.segments.get(segment, [row]),
        offer["min_spend"] > MAX_SPEND_RATIO * state.basket_value[row],
        (row, offer["offer_key"]) in {tuple(pair) for pair in state.redeemed_offers.to_numpy().tolist()},
        is_over_cap(state, row) and not received and bool(channels) and not is_open,
    ]
    return next((code for code, refused in enumerate(refusals, 1) if refused), 0)


def request_code(table: OfferTable, state: CustomerState, row: int, column: int, request: OfferRequest) -> int:
    channel, channels = request.channel, table.offers["channels"].iloc[column]
    if channel is not None and channels and channel not in channels:
        return 14
    if channel is not None and channel not in CONSENT_FREE_CHANNELS:
        if channel not in state.channels[row]:
            return 15
        if is_over_cap(state, row) and not has_received(table, state, row, column):
            return 13
    return 16 if table.offers["public_id"].iloc[column] in request.excluded_ids else 0


def has_received(table: OfferTable, state: CustomerState, row: int, column: int) -> bool:
    campaign = table.offers["campaign_id"].iloc[column]
    return (row, campaign) in {tuple(pair) for pair in state.received_campaigns.to_numpy().tolist()}


def is_over_cap(state: CustomerState, row: int) -> bool:
    return state.is_over_contact_cap is not None and bool(state.is_over_contact_cap[row])


def test_each_code_has_one_reason() -> None:
    codes = [rule.code for rule in (*RULES, *REQUEST_RULES)]
    assert sorted(set(codes)) == list(range(1, len(eligibility.REASONS)))
    assert {rule.reason for rule in (*RULES, *REQUEST_RULES)} == set(eligibility.REASONS[1:])
    assert [rule.code for rule in RULES] == sorted(rule.code for rule in RULES)
