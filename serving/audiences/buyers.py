"""Buyers: who is likeliest to buy any of some products, and what of theirs says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from customers import catalogue, consent, reasons
from models import shelves
from models.bundle import Champion
from serving import because, company, crowd, fresh, rules
from serving.crowd import Crowd, Floats, Found, Ints
from serving.desk import Desk
from serving.inquiries import AudienceQuestion
from serving.rules import Order

#: Of a whole category, so many best sellers are looked at when a reason is sought for who has bought none of it.
TELLING = 20
NOTHING_ASKED = "the shop knows none of what was asked for"
ALL_BARRED = "the shop's rules leave out all that was asked for"
HIDDEN = "it is sensitive, and they have not allowed that such things are looked at"
HAVE_IT = "they have bought it and are not to be offered it again yet"


def found(desk: Desk, question: AudienceQuestion) -> Found:
    """Who is likeliest to buy any of these products within the recommender's window."""
    champion, order = desk.champion("recommender"), rules.order(desk.shop, desk.now())
    asked, notes = _asked(desk, question)
    products = np.setdiff1d(asked, order.out)
    gathered = crowd.gather(desk, question.channel)
    days = champion.facts.get("settings", {}).get("window_days")
    none = Found(
        np.empty(0, np.int64), np.empty(0), {}, gathered.as_of, gathered.left_out, days,
        fresh.stands_in(champion), champion, notes,
    )  # fmt: skip
    if not len(products):
        return replace(none, reason=ALL_BARRED if len(asked) else NOTHING_ASKED)
    keys, chances, left_out = _chances(desk, champion, order, gathered, products)
    best = np.lexsort((keys, -chances))
    keys, chances = keys[best], chances[best]
    why = _why(desk, gathered, keys[: question.n], products)
    return replace(none, keys=keys, chances=chances, why=why, left_out={**gathered.left_out, **left_out})


def _asked(desk: Desk, question: AudienceQuestion) -> tuple[Ints, list[str]]:
    """The products in question, rising, and what of it the shop does not know."""
    if question.categories:
        keys = desk.in_categories(question.categories)
        return np.unique(np.array(keys, np.int64)), [] if keys else ["categories: none is in the catalogue"]
    known = catalogue.keys_of(desk.shop, question.product_ids)
    wanted = set(question.product_ids)
    missing = len(wanted - set(known))
    notes = [f"product_ids: {missing} of {len(wanted)} are no products of this shop"] if missing else []
    return np.unique(np.array(list(known.values()), np.int64)), notes


def _chances(
    desk: Desk, champion: Champion, order: Order, gathered: Crowd, products: Ints
) -> tuple[Ints, Floats, Counter[str]]:
    """P(everybody who may be asked about buys any of the products that they may be offered), and who is left out."""
    guarded = np.intersect1d(products, np.array(sorted(desk.goods().sensitive), np.int64))
    sees = consent.allowed(desk.shop, gathered.keys.tolist(), "profiling_sensitive") if len(guarded) else set[int]()
    found: list[tuple[Ints, Floats]] = [(np.empty(0, np.int64), np.empty(0))]
    left_out: Counter[str] = Counter()
    for shelf in crowd.shelves(desk, gathered):
        may = shelf["customer_key"].isin(sees).to_numpy() | (len(guarded) == 0)
        for part, wanted in ((shelf[may], products), (shelf[~may], np.setdiff1d(products, guarded))):
            kept, barred = _to_offer(part, order, wanted)
            left_out[HIDDEN if not len(wanted) else HAVE_IT] += len(part) - len(kept)
            if len(kept):
                found.append((kept["customer_key"].to_numpy(np.int64), _bought(champion, kept, wanted, barred)))
    keys, chances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return keys, chances, +left_out


def _to_offer(shelf: pd.DataFrame, order: Order, products: Ints) -> tuple[pd.DataFrame, dict[int, Ints]]:
    """Those to whom any of the products may be offered, and to whom which of them may not."""
    if not len(products):
        return shelf.head(0), {}
    barred = {key: np.intersect1d(mine, products) for key, mine in rules.barred(shelf, order).items()}
    all_of_it = [key for key, mine in barred.items() if len(mine) == len(products)]
    some = {key: mine for key, mine in barred.items() if 0 < len(mine) < len(products)}
    return shelf[~shelf["customer_key"].isin(all_of_it)], some


def _bought(champion: Champion, shelf: pd.DataFrame, products: Ints, barred: Mapping[int, Ints]) -> Floats:
    """P(each customer buys any of the products), without those that are not offered to them."""
    chances = np.asarray(champion.model.chances(shelf, products), np.float64)
    few = shelf["customer_key"].isin(list(barred)).to_numpy()
    if few.any():
        some = shelf[few]
        listed = champion.model.score(some, lists=("again", "new"), exclude=dict(barred), only=products)
        chances[few] = shelves.any_of(listed, some)
    return np.clip(np.nan_to_num(chances), 0.0, 1.0)


def _why(desk: Desk, gathered: Crowd, keys: Ints, products: Ints) -> dict[int, str]:
    """Of each of these customers what they bought most of it, else what goes with it on their shelf."""
    rows = list(crowd.shelves(desk, gathered, keys, ["product_keys", *because.FIGURES]))
    if not rows:
        return {}
    shelf = pd.concat(rows, ignore_index=True)
    hidden = desk.goods().sensitive
    sees = consent.allowed(desk.shop, keys.tolist(), "profiling_sensitive") if hidden else set[int]()
    own = because.flat(shelf, hidden=hidden, sees=sees)
    mine = own[own["product_key"].isin(products)]
    most = mine.sort_values(["times", "last_days"], ascending=[False, True]).drop_duplicates("customer_key")
    said = dict(zip(most["customer_key"].tolist(), _own_words(desk, most, products), strict=True))
    others = shelf[~shelf["customer_key"].isin(list(said))]
    return said | _beside(desk, others, own, products)


def _own_words(desk: Desk, most: pd.DataFrame, products: Ints) -> list[str]:
    columns = ("product_key", *because.FIGURES)
    names = catalogue.names_of(desk.shop, most["product_key"].unique()) if len(products) > 1 else {}
    told = zip(*(most[name].tolist() for name in columns), strict=True)
    return [f"{names[key]}: {reasons.own(*figures)}" if key in names else reasons.own(*figures)
            for key, *figures in told]  # fmt: skip


def _beside(desk: Desk, others: pd.DataFrame, own: pd.DataFrame, products: Ints) -> dict[int, str]:
    """Of customers who have bought none of the products: what of theirs goes with the best sold of these."""
    keys, companions = others["customer_key"].to_numpy(np.int64), company.of(desk)
    grounds: list[Sequence[int]] = [()] * len(keys)
    if companions is not None and len(keys):
        telling = companions.best_sold(products, TELLING)
        asked = np.repeat(np.arange(len(keys)), len(telling))
        place = pd.Index(keys).get_indexer(pd.Index(own["customer_key"]))
        theirs = own.assign(row=place)[place >= 0].reset_index(drop=True)
        best = companions.because(
            asked, np.tile(telling, len(keys)), theirs["row"].to_numpy(), theirs["product_key"].to_numpy()
        )
        for row, entry in zip(asked[best >= 0][::-1].tolist(), best[best >= 0][::-1].tolist(), strict=True):
            grounds[row] = (int(theirs["product_key"].iat[entry]), int(theirs["last_days"].iat[entry]))
    spoken = reasons.speak(desk.shop, [(key, "new", each) for key, each in zip(keys.tolist(), grounds, strict=True)])
    return dict(zip(keys.tolist(), spoken, strict=True))
