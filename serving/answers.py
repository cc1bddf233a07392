"""Answers: from customers' ids to what a champion says of them now, written down before it is said.

Whatever id is asked for gets an answer, in the order asked; one that the shop does not know, or has no
figures of, gets what holds for the shop and is flagged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import catalogue, clock, consent, profiles
from models.bundle import Champion
from serving import metrics, scorer, visits, writeback
from serving.desk import NOBODY, Desk
from serving.schemas import (
    ChurnAnswer,
    ChurnResult,
    Days,
    ModelFacts,
    NextPurchaseAnswer,
    NextPurchaseResult,
    Product,
    RecommendationAnswer,
    RecommendationQuestion,
    RecommendationResult,
)


def churn(desk: Desk, customer_ids: Sequence[str]) -> ChurnAnswer:
    """How likely each customer is to stay away for the whole horizon, and why."""
    asked = _look_up(desk, customer_ids)
    champion = desk.champion("churn")
    drift, frame = _drift(desk, champion, asked)
    results = [
        ChurnResult(
            **asked.common(frame, drift.fallback, place),
            probability=float(drift.probability[row]),
            horizon_days=drift.horizon_days,
            band=drift.band[row],
            reasons=drift.reasons[row],
        )
        for place, row in enumerate(asked.rows)
    ]
    return ChurnAnswer(**_envelope(desk, "churn", frame, [champion], results))


def next_purchase(desk: Desk, customer_ids: Sequence[str]) -> NextPurchaseAnswer:
    """When each customer comes back; at churn's horizon it is churn's own number, where churn speaks."""
    asked = _look_up(desk, customer_ids)
    champion, quiet = desk.champion("timing"), desk.champions.get("churn")
    drift = _drift(desk, quiet, asked)[0] if quiet else None
    frame = desk.figures(champion, asked.keys)
    back = scorer.returning(champion.model, frame, drift)
    sure = frame[~back.fallback]
    back = scorer.flagged(back, stands_in(champion))
    desk.keep(champion, sure, writeback.of_timing(frame, back))
    waits = _waits(desk, frame, back)
    results = [
        NextPurchaseResult(**asked.common(frame, back.fallback, place), **waits[row])
        for place, row in enumerate(asked.rows)
    ]
    return NextPurchaseAnswer(**_envelope(desk, "next-purchase", frame, [champion, *filter(None, [quiet])], results))


def recommendations(desk: Desk, question: RecommendationQuestion) -> RecommendationAnswer:
    """Which products each customer is likeliest to buy next."""
    asked = _look_up(desk, question.customer_ids)
    champion = desk.champion("recommender")
    shelf = desk.figures(champion, asked.keys)
    known = scorer.has_figures(shelf)
    fallback = ~known | stands_in(champion)
    whole = scorer.lists(champion.model, shelf)
    desk.keep(champion, shelf[known], writeback.of_lists(shelf, whole, fallback))
    chosen = _chosen(desk, champion, question, shelf, whole)
    items = _items(desk, chosen, question.n)
    results = [
        RecommendationResult(
            **asked.common(shelf, fallback, place), items=items.get(int(shelf["customer_key"].iloc[row]), [])
        )
        for place, row in enumerate(asked.rows)
    ]
    return RecommendationAnswer(**_envelope(desk, "recommendations", shelf, [champion], results))


@dataclass(frozen=True)
class Asked:
    """The customers asked for: each id with its row in frames of `keys`, which end with a row for nobody.

    That row answers for whoever the shop does not know, and for whoever does not allow profiling.
    """

    customer_ids: Sequence[str]
    known: Collection[str]
    keys: list[int]
    rows: list[int]

    def common(self, frame: pd.DataFrame, fallback: np.ndarray, place: int) -> dict[str, Any]:
        """What every result says first."""
        row = self.rows[place]
        return {
            "customer_id": self.customer_ids[place],
            "known": self.customer_ids[place] in self.known,
            "fallback": bool(fallback[row]),
            "features_as_of": moment(frame["as_of"].iloc[row]),
        }


def _drift(desk: Desk, champion: Champion, asked: Asked) -> tuple[scorer.Drift, pd.DataFrame]:
    """Churn of the customers asked for, and from which figures; written down."""
    frame = desk.figures(champion, asked.keys)
    drift = scorer.churn(champion.model, frame, desk.lines())
    sure = frame[~drift.fallback]
    drift = scorer.flagged(drift, stands_in(champion))
    desk.keep(champion, sure, writeback.of_churn(frame, drift))
    return drift, frame


def stands_in(champion: Champion) -> bool:
    """Whether this champion is the plain rule that serves where there was too little to learn from."""
    return bool(champion.facts.get("fallback", False))


def _look_up(desk: Desk, customer_ids: Sequence[str]) -> Asked:
    known = profiles.keys_of(desk.shop, list(customer_ids))
    allowed = consent.allowed(desk.shop, known.values(), "profiling")
    keys = list(dict.fromkeys(known[name] for name in customer_ids if known.get(name) in allowed))
    place = {key: row for row, key in enumerate(keys)}
    rows = [place.get(known.get(name, NOBODY), len(keys)) for name in customer_ids]
    return Asked(customer_ids, known.keys(), keys, rows)


def moment(value: Any) -> datetime | None:
    """An instant out of a frame; None where there is none."""
    return None if pd.isna(value) else pd.Timestamp(value).to_pydatetime()


def _envelope(
    desk: Desk, question: str, frame: pd.DataFrame, champions: Sequence[Champion], results: Sequence[Any]
) -> dict[str, Any]:
    """What surrounds every answer. It speaks of the newest figures used: with none, of now."""
    visit = visits.current()
    as_of = moment(frame["as_of"].max()) or desk.now()
    metrics.answers(question, len(results), sum(result.fallback for result in results))
    return {
        "request_id": visit.request_id,
        "as_of": as_of,
        "models": [_facts(champion) for champion in champions],
        "took_ms": visit.took_ms,
        "attribution_token": desk.token(visit.request_id, {c.name: str(c.version) for c in champions}, as_of),
        "results": results,
    }


def _facts(champion: Champion) -> ModelFacts:
    return ModelFacts(name=champion.name, version=str(champion.version), trained_at=champion.facts.get("trained_at"))


# When they come back ----------------------------------------------------------------------------------


def _waits(desk: Desk, frame: pd.DataFrame, back: scorer.Return) -> list[dict[str, Any]]:
    """What is said of each row of the frame."""
    days, now, zone = writeback.days(back), desk.now(), desk.shop.zone
    moments = [moment(at) or now for at in frame["as_of"]]
    return [
        {
            "p": {str(within): p for within, p in writeback.chances(back, row).items()},
            "days": Days(**{name: at[row] for name, at in days.items()}),
            "expected_at": None if wait is None else clock.expected_at(moments[row], wait, zone, now=now),
        }
        for row, wait in enumerate(days["p50"])
    ]


# Which products ---------------------------------------------------------------------------------------


def _chosen(
    desk: Desk, champion: Champion, question: RecommendationQuestion, shelf: pd.DataFrame, whole: pd.DataFrame
) -> pd.DataFrame:
    """The list asked for; where products are ruled out, made again without them, lest it run short."""
    if question.exclude_product_ids or question.categories:
        exclude = set(catalogue.keys_of(desk.shop, question.exclude_product_ids).values())
        only = desk.in_categories(question.categories) if question.categories else None
        whole = scorer.lists(champion.model, shelf, n=question.n, exclude=exclude, only=only)
    # Who has no purchases has nothing to buy again: they get what sells in the shop, whatever was asked.
    strangers = shelf.loc[~scorer.has_figures(shelf), "customer_key"]
    wanted = np.where(whole["customer_key"].isin(strangers), "any", question.list)
    return whole[(whole["list"] == wanted) & (whole["rank"] <= question.n)]


def _items(desk: Desk, ranked: pd.DataFrame, n: int) -> dict[int, list[Product]]:
    """Products by customer, under the ids that the shop knows them by."""
    names = catalogue.ids_of(desk.shop, [int(key) for key in ranked["product_key"].unique()])
    items: dict[int, list[Product]] = {}
    columns = ("customer_key", "rank", "product_key", "score", "source", "reason")
    for customer, rank, product, score, source, reason in _rows(ranked, *columns):
        named = Product(rank=rank, product_id=names[product], score=score, source=source, reason=reason)
        items.setdefault(customer, []).append(named)
    return items


def _rows(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in columns), strict=True)
