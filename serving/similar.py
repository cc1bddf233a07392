"""Similar: for a product's page, what may be taken instead, what goes with it, and what is dearer of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import catalogue, consent, profiles
from models.bundle import Champion
from models.companions import Companions
from serving import company, rules, scorer, words
from serving.asked import envelope
from serving.desk import Desk
from serving.inquiries import SimilarAnswer, SimilarQuestion, SimilarResult
from serving.schemas import Product

Ints = NDArray[np.int64]

#: Of a customer who names no product, so many of their own are taken, those they buy most.
OWN = 10
WITHOUT = {
    "similar": "the shop sells nothing else of its kind",
    "together": "too few customers have bought it with anything else",
    "upsell": "nothing dearer of its kind is sold here, or its price is not known",
}
NEITHER = "they have bought nothing that may be looked at: name products, or ask /v1/recommendations"


@dataclass(frozen=True)
class Visitor:
    """For whom the page is: what they buy most, what they may not be shown, and what they are not offered again."""

    own: list[int]
    out: Ints


def answer(desk: Desk, question: SimilarQuestion) -> SimilarAnswer:
    """The companions of each product, in the order asked."""
    champion = desk.champion("recommender")
    visitor = _visitor(desk, champion, question.customer_id)
    known = catalogue.keys_of(desk.shop, question.product_ids)
    asked = question.product_ids
    if not asked:
        names = catalogue.ids_of(desk.shop, visitor.own)
        asked = [names[key] for key in visitor.own]
        known = {names[key]: key for key in visitor.own}
    found = _found(desk, [known[name] for name in asked if name in known], question, visitor)
    popular = _popular(desk, champion, question.n, visitor)
    results = [_result(name, known.get(name), found, popular, question.how) for name in asked]
    told = pd.DataFrame({"as_of": pd.to_datetime(pd.Series([champion.facts.get("as_of")]), utc=True)})
    notes = [] if results else [NEITHER]
    return SimilarAnswer(**envelope(desk, "similar", told, [champion], results), notes=notes)


def _visitor(desk: Desk, champion: Champion, customer_id: str | None) -> Visitor:
    """Who asks; of who does not allow it nothing is looked at, and what is sensitive they are not shown."""
    order, hidden = rules.order(desk.shop, desk.now()), np.array(sorted(desk.goods().sensitive), np.int64)
    key = profiles.keys_of(desk.shop, [customer_id]).get(customer_id) if customer_id is not None else None
    if key is None or not consent.allowed(desk.shop, [key], "profiling"):
        return Visitor([], np.union1d(order.out, hidden))
    shelf = desk.figures(champion, [key]).iloc[:1]
    sees = not len(hidden) or bool(consent.allowed(desk.shop, [key], "profiling_sensitive"))
    unseen = np.empty(0, np.int64) if sees else hidden
    barred = rules.barred(shelf, order).get(key, np.empty(0, np.int64))
    held = shelf["product_keys"].iloc[0] if scorer.has_figures(shelf)[0] else []
    own = [int(product) for product in held if product not in set(unseen.tolist())][:OWN]
    return Visitor(own, np.unique(np.concatenate([order.out, unseen, barred])))


def _found(desk: Desk, keys: Sequence[int], question: SimilarQuestion, visitor: Visitor) -> dict[int, list[Product]]:
    """What is found for each product, by its key; nothing where nobody knows what goes together yet."""
    companions = company.of(desk)
    if companions is None:
        return {}
    found = companions.find(keys, question.n, question.how, exclude=visitor.out.tolist())
    reasons = _reasons(desk, companions, found, question.how)
    return _listed(desk, found.assign(reason=reasons, source=question.how))


def _reasons(desk: Desk, companions: Companions, found: pd.DataFrame, how: str) -> list[str]:
    if how == "together":
        columns = (found[name].tolist() for name in ("together", "followed", "own"))
        return [words.why_together(*counts) for counts in zip(*columns, strict=True)]
    pairs = found[["product_key", "other_key"]].to_numpy(np.int64)
    kinds = catalogue.kinds_of(desk.shop, np.unique(pairs))
    prices = companions.prices_of(pairs.ravel()).reshape(pairs.shape).tolist()
    return [
        words.why_instead(how, _common(kinds, mine, theirs), other, price, desk.shop.currency)
        for (mine, theirs), (price, other) in zip(pairs.tolist(), prices, strict=True)
    ]


def _common(kinds: Mapping[int, tuple[str | None, str | None]], one: int, other: int) -> str | None:
    """The finest kind that two products are both of, in the catalogue's words."""
    same = [mine for mine, theirs in zip(kinds.get(one, ()), kinds.get(other, ()), strict=True) if mine == theirs]
    return next(filter(None, same), None)


def _listed(desk: Desk, found: pd.DataFrame) -> dict[int, list[Product]]:
    names = catalogue.ids_of(desk.shop, [int(key) for key in found["other_key"].unique()])
    listed: dict[int, list[Product]] = {}
    columns = ("product_key", "rank", "other_key", "score", "source", "reason")
    for key, rank, other, score, source, reason in zip(*(found[name].tolist() for name in columns), strict=True):
        item = Product(rank=rank, product_id=names[other], score=score, source=source, reason=reason)
        listed.setdefault(key, []).append(item)
    return listed


def _popular(desk: Desk, champion: Champion, n: int, visitor: Visitor) -> list[Product]:
    """What sells in the shop, for a product of which nothing is known."""
    keys, shares = champion.model.typical(n + len(visitor.out))
    kept = np.flatnonzero(~np.isin(keys, visitor.out))[:n]
    names = catalogue.ids_of(desk.shop, keys[kept].tolist())
    reason = words.why_product("popular")
    return [
        Product(rank=rank, product_id=names[key], score=round(share, 6), source="popular", reason=reason)
        for rank, (key, share) in enumerate(zip(keys[kept].tolist(), shares[kept].tolist(), strict=True), start=1)
    ]


def _result(
    name: str, key: int | None, found: Mapping[int, list[Product]], popular: list[Product], how: str
) -> SimilarResult:
    """A known product without a dearer one gets none, and is told so: what sells best would be no answer."""
    items: list[Product] = [] if key is None else found.get(key, [])
    fallback = not items and how != "upsell"
    reason = None if items else "the shop does not know this product" if key is None else WITHOUT[how]
    return SimilarResult(
        product_id=name, known=key is not None, fallback=fallback or key is None,
        items=popular if fallback or key is None else items, reason=reason,
    )  # fmt: skip
