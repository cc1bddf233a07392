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
#: Where there are some, but fewer than asked for.
NO_MORE = {
    "similar": "its kind has no more",
    "together": "customers have bought no more with it",
    "upsell": "no more of its kind are dearer",
}
LEFT_OUT = "the shop's rules, or what may not be shown, leave out the rest"
ALL_LEFT_OUT = "the shop's rules, or what may not be shown, leave out all that there is"
NOT_YET = "what goes with it is not known yet: the next night finds out; run: regulars run"
STRANGER = "customer_id: the shop knows no customer by this id; nothing of theirs is looked at"
NOT_PROFILED = "they have not allowed profiling: nothing of theirs is looked at"
NEITHER = "they have bought nothing that may be looked at"
INSTEAD = "name products, or ask /v1/recommendations"


@dataclass(frozen=True)
class Visitor:
    """For whom the page is: what they buy most, what they may not be shown, and what they are not offered again.

    `known` says whether the shop knows them, None of nobody in particular; `note` why nothing of theirs is looked at.
    """

    own: list[int]
    out: Ints
    known: bool | None = None
    note: str | None = None


def answer(desk: Desk, question: SimilarQuestion) -> SimilarAnswer:
    """The companions of each product, in the order asked.

    Of the shop's rules only those hold that leave products out: the bars, and repurchase. Nothing is boosted, pinned,
    spread over categories or explored.
    """
    champion = desk.champion("recommender")
    visitor = _visitor(desk, champion, question.customer_id)
    known = catalogue.keys_of(desk.shop, question.product_ids)
    asked = question.product_ids
    if not asked:
        names = catalogue.ids_of(desk.shop, visitor.own)
        asked = [names[key] for key in visitor.own]
        known = {names[key]: key for key in visitor.own}
    keys = [known[name] for name in asked if name in known]
    found = _found(desk, keys, question, visitor)
    fewer = _why_fewer(desk, keys, question, found)
    popular = _popular(desk, champion, question.n + 1, visitor)
    results = [_result(name, known.get(name), found, popular, fewer, question) for name in asked]
    told = pd.DataFrame({"as_of": pd.to_datetime(pd.Series([champion.facts.get("as_of")]), utc=True)})
    notes = [visitor.note] if visitor.note else []
    if not results:
        notes = [f"{visitor.note or NEITHER}; {INSTEAD}"]
    said = envelope(desk, "similar", told, [champion], results)
    return SimilarAnswer(**said, customer_known=visitor.known, notes=notes)


def _visitor(desk: Desk, champion: Champion, customer_id: str | None) -> Visitor:
    """Who asks; of who does not allow it nothing is looked at, and what is sensitive they are not shown."""
    order, hidden = rules.order(desk.shop, desk.now()), np.array(sorted(desk.goods().sensitive), np.int64)
    key = profiles.keys_of(desk.shop, [customer_id]).get(customer_id) if customer_id is not None else None
    if key is None or not consent.allowed(desk.shop, [key], "profiling"):
        note = None if customer_id is None else STRANGER if key is None else NOT_PROFILED
        return Visitor([], np.union1d(order.out, hidden), None if customer_id is None else key is not None, note)
    shelf = desk.figures(champion, [key]).iloc[:1]
    sees = not len(hidden) or bool(consent.allowed(desk.shop, [key], "profiling_sensitive"))
    unseen = np.empty(0, np.int64) if sees else hidden
    barred = rules.barred(shelf, order).get(key, np.empty(0, np.int64))
    held = shelf["product_keys"].iloc[0] if scorer.has_figures(shelf)[0] else []
    own = [int(product) for product in held if product not in set(unseen.tolist())][:OWN]
    return Visitor(own, np.unique(np.concatenate([order.out, unseen, barred])), known=True)


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


def _why_fewer(
    desk: Desk, keys: Sequence[int], question: SimilarQuestion, found: Mapping[int, list[Product]]
) -> dict[int, str]:
    """Why a product has fewer companions than asked for: nobody knows yet, there are no more, or some are left out."""
    companions, n, how = company.of(desk), question.n, question.how
    few = [key for key in dict.fromkeys(keys) if len(found.get(key, ())) < n]
    if companions is None:
        return dict.fromkeys(few, NOT_YET)
    unheard = set(few) - set(companions.likeness.products.tolist())
    whole = companions.find(few, n, how)["product_key"].value_counts()
    said = {}
    for key in few:
        given, some = len(found.get(key, ())), int(whole.get(key, 0))
        if key in unheard:
            said[key] = NOT_YET
        elif given:
            said[key] = f"{given} of {n}; {LEFT_OUT if some > given else NO_MORE[how]}"
        else:
            said[key] = ALL_LEFT_OUT if some else WITHOUT[how]
    return said


def _popular(desk: Desk, champion: Champion, n: int, visitor: Visitor) -> dict[int, Product]:
    """What sells in the shop, best first, by its key: for a product of which nothing is known."""
    keys, shares = champion.model.typical(n + len(visitor.out))
    kept = np.flatnonzero(~np.isin(keys, visitor.out))[:n]
    names = catalogue.ids_of(desk.shop, keys[kept].tolist())
    reason = words.why_product("popular")
    return {
        key: Product(rank=rank, product_id=names[key], score=round(share, 6), source="popular", reason=reason)
        for rank, (key, share) in enumerate(zip(keys[kept].tolist(), shares[kept].tolist(), strict=True), start=1)
    }


def _result(
    name: str,
    key: int | None,
    found: Mapping[int, list[Product]],
    popular: Mapping[int, Product],
    fewer: Mapping[int, str],
    question: SimilarQuestion,
) -> SimilarResult:
    """A known product without a dearer one gets none, and is told so: what sells best would be no answer."""
    items: list[Product] = [] if key is None else found.get(key, [])
    fallback = key is None or (not items and question.how != "upsell")
    reason = "the shop does not know this product" if key is None else fewer.get(key)
    if fallback:
        others = [item for other, item in popular.items() if other != key][: question.n]
        items = [item.model_copy(update={"rank": rank}) for rank, item in enumerate(others, start=1)]
    return SimilarResult(product_id=name, known=key is not None, fallback=fallback, items=items, reason=reason)
