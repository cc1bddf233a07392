"""Answers: from customers' ids to what a champion says of them now, written down before it is said.

Whatever id is asked for gets an answer, in the order asked; one that the shop does not know, or has no
figures of, gets what holds for the shop and is flagged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serving import fresh, items, offering, restocking, spending
from serving.asked import envelope, look_up
from serving.desk import NOBODY, Desk, Seen
from serving.schemas import (
    ChurnAnswer,
    ChurnResult,
    Dropped,
    NextPurchaseAnswer,
    NextPurchaseResult,
    OffersAnswer,
    OffersQuestion,
    OffersResult,
    RestockAnswer,
    RestockQuestion,
    RestockResult,
    ValueAnswer,
    ValueResult,
)
from serving.wanted import RecommendationAnswer, RecommendationQuestion, RecommendationResult

#: So many dropped offers are named in an answer about several customers, shared among them; each is told of some.
DROPPED, DROPPED_LEAST, DROPPED_MOST = 20_000, 20, 1_000


def churn(desk: Desk, customer_ids: Sequence[str]) -> ChurnAnswer:
    """How likely each customer is to stay away for the whole horizon, and why."""
    asked = look_up(desk, customer_ids)
    champion = desk.champion("churn")
    drift, frame = fresh.drift(desk, champion, asked.keys)
    results = [
        ChurnResult(
            **asked.common(frame, drift.fallback, place),
            probability=float(drift.probability[row]),
            horizon_days=drift.horizon_days,
            band=drift.band[row],
            reasons=[sentence for sentence, _ in drift.reasons[row]],
        )
        for place, row in enumerate(asked.rows)
    ]
    return ChurnAnswer(**envelope(desk, "churn", frame, [champion], results))


def next_purchase(desk: Desk, customer_ids: Sequence[str]) -> NextPurchaseAnswer:
    """When each customer comes back; at churn's horizon it is churn's own number, where churn speaks."""
    asked = look_up(desk, customer_ids)
    champion, quiet = desk.champion("timing"), desk.champions.get("churn")
    seen: Seen = {}
    drift = fresh.drift(desk, quiet, asked.keys, seen)[0] if quiet else None
    back, frame = fresh.returning(desk, champion, asked.keys, drift, seen)
    waits = items.waits(desk, frame, back)
    results = [
        NextPurchaseResult(**asked.common(frame, back.fallback, place), **waits[row])
        for place, row in enumerate(asked.rows)
    ]
    return NextPurchaseAnswer(**envelope(desk, "next-purchase", frame, [champion, *filter(None, [quiet])], results))


def value(desk: Desk, customer_ids: Sequence[str]) -> ValueAnswer:
    """What each customer is expected to spend within the horizon."""
    asked = look_up(desk, customer_ids)
    champion, currency = desk.champion("value"), desk.shop.currency
    worth, frame = fresh.worth(desk, champion, asked.keys)
    results = [
        ValueResult(
            **asked.common(frame, worth.fallback, place),
            expected=spending.text(worth.expected[row], currency),
            currency=currency,
            horizon_days=worth.horizon_days,
        )
        for place, row in enumerate(asked.rows)
    ]
    return ValueAnswer(**envelope(desk, "value", frame, [champion], results))


def restock(desk: Desk, question: RestockQuestion) -> RestockAnswer:
    """Which categories each customer will need again, within so many days."""
    asked = look_up(desk, question.customer_ids)
    champion = desk.champion("restock")
    said = fresh.needs(desk, champion, asked.keys)
    needed = items.needed(desk, said.frame, restocking.likeliest(said.rows, question.within_days))
    keys = said.frame["customer_key"].tolist()
    results = [
        RestockResult(**asked.common(said.frame, said.fallback, place), items=needed.get(keys[row], []))
        for place, row in enumerate(asked.rows)
    ]
    return RestockAnswer(**envelope(desk, "restock", said.frame, [champion], results))


def recommendations(desk: Desk, question: RecommendationQuestion) -> RecommendationAnswer:
    """Which products each customer is likeliest to buy next."""
    asked = look_up(desk, question.customer_ids)
    champion = desk.champion("recommender")
    said = fresh.lists(desk, champion, asked.keys)
    chosen = items.chosen(champion, question, said, desk, nobody=len(asked.keys) in asked.rows)
    listed, short = items.products(desk, chosen.listed), items.missing(chosen)
    keys = said.shelf["customer_key"].tolist()
    results = [
        RecommendationResult(
            **asked.common(said.shelf, said.fallback, place),
            items=listed.get(keys[row], []),
            short=short.get(keys[row]),
            notes=chosen.notes,
        )
        for place, row in enumerate(asked.rows)
    ]
    return RecommendationAnswer(**envelope(desk, "recommendations", said.shelf, [champion], results))


def offers(desk: Desk, question: OffersQuestion) -> OffersAnswer:
    """Which offers to make to each customer, and why not the others."""
    asked = look_up(desk, question.customer_ids)
    champion = desk.champion("offers")
    # What may not be made to somebody is kept from them also where nothing may be foretold of them.
    others = [key for key in dict.fromkeys(asked.known.values()) if key not in set(asked.keys)]
    said = fresh.offers(desk, champion, asked.keys, others)
    place_of = {key: row for row, key in enumerate(said.frame["customer_key"].tolist())}
    asked = replace(asked, rows=[place_of[asked.known.get(name, NOBODY)] for name in question.customer_ids])
    verdict = offering.wished(said.offered, channel=question.channel, exclude=question.exclude_offer_ids)
    made = items.offers(desk, offering.ranked(said.offered, verdict, question.n), said.offered)
    most = named(len(asked.rows))
    kept_back = {row: offering.dropped(said.offered, verdict, row, most) for row in set(asked.rows)}
    results = [
        OffersResult(
            **asked.common(said.frame, said.fallback, place),
            items=made.get(row, []),
            dropped=[Dropped(**each) for each in kept_back[row][0]],
            dropped_count=kept_back[row][1],
            nothing=offering.why_nothing(said.offered, verdict, row),
        )
        for place, row in enumerate(asked.rows)
    ]
    return OffersAnswer(**envelope(desk, "offers", said.frame, [champion], results))


def named(customers: int) -> int | None:
    """How many dropped offers each of so many customers is told of; one alone is told of all."""
    return None if customers == 1 else min(max(DROPPED // customers, DROPPED_LEAST), DROPPED_MOST)
