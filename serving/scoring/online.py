"""Fresh: what the champions say now of some customers, from their newest figures, kept before anybody hears it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from customers import consent
from features import needs as families
from models.bundle import Champion
from serving import details, newcomers, offering, related, restocking, rules, scorer, spending, stall
from serving import dropped as left_behind
from serving.desk import NOBODY, Desk, Seen


@dataclass(frozen=True)
class Lists:
    """The ranked products of some customers, from which shelves, whose are what holds for all, and by which rules."""

    shelf: pd.DataFrame
    ranked: pd.DataFrame
    fallback: scorer.Flags
    order: rules.Order
    hidden: frozenset[int]
    sees: set[int]
    liking: newcomers.Favourites


@dataclass(frozen=True)
class Needs:
    """What runs out for some customers, as `restocking.needs` gives it, and whose figures there were."""

    frame: pd.DataFrame
    rows: pd.DataFrame
    fallback: scorer.Flags


@dataclass(frozen=True)
class Offers:
    """What is offered to some customers; those of whom nothing may be foretold stand among them."""

    frame: pd.DataFrame
    offered: offering.Offered
    fallback: scorer.Flags


def stands_in(champion: Champion) -> bool:
    """Whether this champion is the plain rule that serves where there was too little to learn from."""
    return bool(champion.facts.get("fallback", False))


def drift(
    desk: Desk, champion: Champion, keys: Sequence[int], seen: Seen | None = None
) -> tuple[scorer.Drift, pd.DataFrame]:
    """How likely each is to stay away, and from which figures."""
    frame = desk.figures(champion, keys, seen)

    def dropped(places: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
        found = left_behind.categories(desk.needs([keys[at] for at in places]), desk.goods().sensitive_categories)
        return {places[at]: names for at, names in found.items()}

    value = _expected(desk, keys, seen)
    said = scorer.churn(champion.model, frame, desk.lines(), costs=desk.shop.retention, value=value, dropped=dropped)
    sure = frame[~said.fallback]
    said = scorer.flagged(said, stands_in(champion))
    desk.keep(champion, sure, details.of_churn(frame, said))
    return said, frame


def _expected(desk: Desk, keys: Sequence[int], seen: Seen | None) -> scorer.Floats | None:
    """What each will spend, and nobody, in the frame's order; only asked where bands go by costs."""
    champion = desk.champions.get("value") if desk.shop.retention.contact_cost is not None else None
    if champion is None:
        return None
    worth = spending.worth(champion.model, desk.figures(champion, keys, seen), currency=desk.shop.currency)
    return np.where(worth.fallback, np.nan, worth.expected)


def returning(
    desk: Desk, champion: Champion, keys: Sequence[int], quiet: scorer.Drift | None, seen: Seen | None = None
) -> tuple[scorer.Return, pd.DataFrame]:
    """When each comes back; `quiet` is what churn has just said of the same customers."""
    frame = desk.figures(champion, keys, seen)
    back = scorer.returning(champion.model, frame, quiet)
    sure = frame[~back.fallback]
    back = scorer.flagged(back, stands_in(champion))
    desk.keep(champion, sure, details.of_timing(frame, back))
    return back, frame


def lists(desk: Desk, champion: Champion, keys: Sequence[int], seen: Seen | None = None) -> Lists:
    """Which products each is likeliest to buy next."""
    shelf = desk.figures(champion, keys, seen)
    known = scorer.has_figures(shelf)
    fallback = ~known | stands_in(champion)
    hidden, sees = desk.goods().sensitive, set[int]()
    if hidden:
        sees = consent.allowed(desk.shop, keys, "profiling_sensitive")
    order = rules.order(desk.shop, desk.now())
    liking = newcomers.liked(desk.shop, set(shelf.loc[~known, "customer_key"]) - {NOBODY})
    ranked = scorer.lists(champion.model, shelf, order, hidden=hidden, sees=sees, liking=liking)
    desk.keep(champion, shelf[known], details.of_lists(shelf, ranked, fallback))
    return Lists(shelf, ranked, fallback, order, hidden, sees, liking)


def worth(
    desk: Desk, champion: Champion, keys: Sequence[int], seen: Seen | None = None
) -> tuple[spending.Worth, pd.DataFrame]:
    """What each will spend."""
    frame = desk.figures(champion, keys, seen)
    said = spending.worth(champion.model, frame, currency=desk.shop.currency)
    sure = frame[~said.fallback]
    said = scorer.flagged(said, stands_in(champion))
    desk.keep(champion, sure, details.of_value(frame, said))
    return said, frame


def needs(desk: Desk, champion: Champion, keys: Sequence[int], seen: Seen | None = None) -> Needs:
    """What runs out for each."""
    frame = desk.figures(champion, keys, seen)
    hidden = desk.goods().sensitive_categories
    sees = consent.allowed(desk.shop, keys, "profiling_sensitive") if hidden else set()
    rows = restocking.needs(champion.model, families.pairs(frame), hidden=hidden, sees=sees)
    known = scorer.has_figures(frame)
    fallback = ~known | stands_in(champion) | restocking.needless(frame, rows)
    desk.keep(champion, frame[known], details.of_restock(frame, rows, fallback))
    return Needs(frame, rows, fallback)


def offers(
    desk: Desk, champion: Champion, keys: Sequence[int], others: Sequence[int] = (), *, seen: Seen | None = None
) -> Offers:
    """What may be offered to each of `keys`, then to `others`, of whom nothing is foretold, and last to nobody."""
    frame, stock = desk.figures(champion, keys, seen), desk.goods()
    mine = frame[scorer.has_figures(frame)]
    nobody = len(frame) - 1
    everybody = [*keys, *others, NOBODY]
    frame = frame.take([*range(nobody), *[nobody] * len(others), nobody]).reset_index(drop=True)
    frame["customer_key"] = np.array(everybody, np.int64)
    baskets = None
    if stock.book.offers["min_spend"].notna().any():
        usual = desk.baskets(keys)
        baskets = np.concatenate([usual, np.full(len(everybody) - len(keys), np.nan)])
    occasion = offering.Occasion(
        stock,
        stall.on_the_table(desk.shop, stock),
        stall.prices(desk.features.folder),
        desk.now(),
        desk.shop.currency,
        related.companions(desk.features.folder),
    )
    known = offering.standing(desk.shop, everybody, baskets)
    offered = offering.offer(champion.model, occasion, frame, known)
    fallback = ~scorer.has_figures(frame) | stands_in(champion)
    desk.keep(champion, mine, details.of_offers(frame, offered.ranked, fallback))
    return Offers(frame, offered, fallback)


def profiled(desk: Desk, keys: Sequence[int]) -> list[int]:
    """Those of these customers of whom anything may be foretold, in their order."""
    allowed = consent.allowed(desk.shop, keys, "profiling")
    return [key for key in keys if key in allowed]


def everything(desk: Desk, keys: Sequence[int]) -> None:
    """Whatever the shop has a champion for, said again of these customers and kept."""
    seen: Seen = {}
    quiet = desk.champions.get("churn")
    said = drift(desk, quiet, keys, seen)[0] if quiet else None
    if timing := desk.champions.get("timing"):
        returning(desk, timing, keys, said, seen)
    for name, say in (("value", worth), ("recommender", lists), ("restock", needs), ("offers", offers)):
        if champion := desk.champions.get(name):
            say(desk, champion, keys, seen=seen)
