"""Items: what stands in the lists of an answer, under the ids by which the shop's systems know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import catalogue, clock, reasons
from customers.wishes import READERS, Wishes
from models.bundle import Champion
from serving import because, details, offering, restocking, rules, scorer, shortage, spending
from serving.asked import moment
from serving.desk import NOBODY, Desk
from serving.fresh import Lists
from serving.offering import Offered
from serving.schemas import Days, Offer, Product, RunningOut
from serving.wanted import RecommendationQuestion, Short


@dataclass(frozen=True)
class Chosen:
    """The products listed, of whom there are too few and why, and what of the question could not be followed."""

    listed: pd.DataFrame
    short: Mapping[int, shortage.Shortage]
    notes: list[str]


def waits(desk: Desk, frame: pd.DataFrame, back: scorer.Return) -> list[dict[str, Any]]:
    """When each customer of the frame comes back."""
    days, now, zone = details.days(back), desk.now(), desk.shop.zone
    moments = [moment(at) or now for at in frame["as_of"]]
    return [
        {
            "p": {str(within): p for within, p in details.chances(back, row).items()},
            "days": Days(**{name: at[row] for name, at in days.items()}),
            "expected_at": None if wait is None else clock.expected_at(moments[row], wait, zone, now=now),
        }
        for row, wait in enumerate(days["p50"])
    ]


def chosen(
    champion: Champion, question: RecommendationQuestion, said: Lists, desk: Desk, *, nobody: bool = True
) -> Chosen:
    """The list asked for, under the shop's rules and those of the question; for nobody too, if somebody is nobody."""
    if not nobody:
        said = replace(said, shelf=said.shelf[said.shelf["customer_key"] != NOBODY])
    wishes = {name: getattr(question, name) for name in READERS}
    order = rules.order(desk.shop, said.order.now, desk.shop.recommendations.beside(wishes))
    # Who has no purchases has nothing to buy again: they get what sells in the shop, whatever was asked.
    wanted = np.where(scorer.has_figures(said.shelf), question.list, "any")
    whole = said.ranked
    if order.wishes != said.order.wishes:
        whole = _again(champion, said, order, wanted, question.n)
    kind = pd.Series(wanted, said.shelf["customer_key"]).reindex(whole["customer_key"]).to_numpy()
    listed = whole[(whole["list"].to_numpy() == kind) & (whole["rank"].to_numpy() <= question.n)]
    shelf = said.shelf.assign(wanted=wanted)
    short = shortage.why(order, shelf, listed, question.n, hidden=said.hidden, sees=said.sees)
    return Chosen(listed, short, shortage.notes(order, Wishes().beside(wishes)))


def _again(champion: Champion, said: Lists, order: rules.Order, wanted: NDArray[Any], n: int) -> pd.DataFrame:
    """The lists made again under other rules: out of those just made, where they do no more than add to theirs."""
    asked: dict[str, Any] = {"n": n, "hidden": said.hidden, "sees": said.sees, "liking": said.liking}
    adds = not said.order.mixes and bool(np.isin(said.order.out, order.out).all())
    known = scorer.has_figures(said.shelf)
    made = []
    for name, seen in sorted({*zip(wanted.tolist(), known.tolist(), strict=True)}):
        shelf = said.shelf[(wanted == name) & (known == seen)]
        before = said.ranked[said.ranked["customer_key"].isin(shelf["customer_key"])] if adds and seen else None
        made.append(scorer.lists(champion.model, shelf, order, names=[name], known=before, **asked))
    return pd.concat(made, ignore_index=True)


def missing(chosen: Chosen) -> dict[int, Short]:
    """By customer key, of those with fewer products than asked for."""
    return {key: Short(missing=few.missing, rules=few.rules, reason=few.reason) for key, few in chosen.short.items()}


def products(desk: Desk, ranked: pd.DataFrame) -> dict[int, list[Product]]:
    """Ranked products by customer key."""
    names = catalogue.ids_of(desk.shop, [int(key) for key in ranked["product_key"].unique()])
    ranked = ranked.assign(reason=because.said(desk.shop, ranked))
    found: dict[int, list[Product]] = {}
    columns = ("customer_key", "rank", "product_key", "score", "source", "reason")
    for customer, rank, product, score, source, reason in _rows(ranked, *columns):
        named = Product(rank=rank, product_id=names[product], score=score, source=source, reason=reason)
        found.setdefault(customer, []).append(named)
    return found


def needed(desk: Desk, frame: pd.DataFrame, rows: pd.DataFrame) -> dict[int, list[RunningOut]]:
    """What runs out by customer key, and when."""
    now, zone = desk.now(), desk.shop.zone
    moments = {key: moment(at) or now for key, at in _rows(frame, "customer_key", "as_of")}
    days: dict[tuple[datetime, float], datetime] = {}
    found: dict[int, list[RunningOut]] = {}
    columns = ("customer_key", "category", "p", "wait_days", *restocking.GROUNDS)
    for key, category, p, wait, *grounds in _rows(rows, *columns):
        place = moments[key], wait
        if wait == wait and place not in days:
            days[place] = clock.expected_at(moments[key], int(wait), zone, now=now)
        need = RunningOut(category=category, p=p, expected_at=days.get(place), reason=reasons.own(*grounds))
        found.setdefault(key, []).append(need)
    return found


def offers(desk: Desk, ranked: pd.DataFrame, offered: Offered) -> dict[int, list[Offer]]:
    """Ranked offers by the customers' rows."""
    listed = offered.table.offers.take(ranked["column"].to_numpy(np.int64))
    named = _rows(listed.astype({"campaign_id": object}), "called", "campaign_id", "ends_at")
    why = reasons.of_offers(desk.shop, zip(ranked["customer_key"].tolist(), offering.reasons_kept(ranked), strict=True))
    columns = ("row", "rank", "p", "expected_gain", "gain_basis", "source")
    found: dict[int, list[Offer]] = {}
    for (row, rank, p, gain, basis, source), reason, (offer_id, campaign, ends_at) in zip(
        _rows(ranked, *columns), why, named, strict=True
    ):
        made = Offer(
            rank=rank,
            offer_id=offer_id,
            campaign_id=campaign,
            score=p,
            expected_gain=None if np.isnan(gain) else spending.text(gain, desk.shop.currency),
            gain_basis=basis,
            currency=desk.shop.currency,
            source=source,
            reason=reason,
            expires_at=ends_at,
        )
        found.setdefault(row, []).append(made)
    return found


def _rows(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in columns), strict=True)
