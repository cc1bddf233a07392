"""Tables: what is handed to campaign engines and BI tools, one row a customer unless said.

The columns are a promise to other people's programs: they are all there also when a table is empty.
"""

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
import sqlalchemy as sa

from customers import catalogue, clock, database, money, reasons, validity
from customers import offers as catalogue_of_offers
from customers import scores as ledger_of_scores
from customers.frames import answers, discreet, named
from customers.instants import micros
from customers.risk import AT_RISK, at_risk
from customers.schema import attributes, transactions
from customers.schema import customers as known_customers
from customers.shop import Shop, ShopError

HORIZONS = (7, 14, 28, 90)
QUANTILES = ("p10", "p50", "p90")
MODELS = ("recommender", "offers", "churn", "timing", "restock", "value")
SCORES = {
    "customer_id": "object",
    "as_of": "datetime64[us, UTC]",
    "churn_probability": "float64",
    "churn_horizon_days": "Int64",
    "churn_band": "object",
    **{f"p_purchase_{days}d": "float64" for days in HORIZONS},
    **{f"next_purchase_days_{quantile}": "float64" for quantile in QUANTILES},
    "expected_value": "float64",
    "value_horizon_days": "Int64",
    "rfm": "object",
    "fallback": "bool",
    **{f"{model}_version": "object" for model in MODELS},
}
TIMING = {"customer_id": "object", "as_of": "datetime64[us, UTC]", "cdf": "object"}
RECOMMENDATIONS = {
    "customer_id": "object",
    "list": "object",
    "rank": "int64",
    "product_id": "object",
    "score": "float64",
    "source": "object",
    "reason": "object",
}
OFFERS = {
    "customer_id": "object",
    "rank": "int64",
    "offer_id": "object",
    "campaign_id": "object",
    "score": "float64",
    "expected_gain": "float64",
    "expires_at": "datetime64[us, UTC]",
    "reason": "object",
}
RESTOCK = {
    "customer_id": "object",
    "category": "object",
    **{f"p_{days}d": "float64" for days in HORIZONS[:3]},
    "expected_at": "datetime64[us, UTC]",
}
CUSTOMERS = {
    "customer_id": "object",
    "stage": "object",
    "joined_at": "datetime64[us, UTC]",
    "orders": "int64",
    "first_purchase_at": "datetime64[us, UTC]",
    "last_purchase_at": "datetime64[us, UTC]",
    "spent": "float64",
    "currency": "object",
}


def table(shop: Shop, name: str, *, as_of: datetime | None = None) -> pd.DataFrame:
    """A table by the name under which it is exported; as of the newest moment that was scored, or of a given one."""
    if name not in TABLES:
        raise ShopError(f"unknown table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](shop, as_of=as_of)


def scores(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """What is said now about every customer who has a churn score."""
    churn = answers(shop, "churn", as_of)
    timing = answers(shop, "timing", as_of).set_index("customer_key")["answer"].to_dict()
    worth = answers(shop, "value", as_of)
    expected = dict(zip(worth["customer_key"], zip(worth["value"], worth["answer"], strict=True), strict=True))
    versions = {model: run.version for model in MODELS if (run := ledger_of_scores.newest(shop, model, as_of))}
    rows = []
    for key, said, answer in zip(churn["customer_key"], churn["value"], churn["answer"], strict=True):
        when = timing.get(key, {})
        spend, over = expected.get(key, (None, {}))
        rows.append(
            {
                "customer_key": key,
                "as_of": churn.attrs.get("as_of"),
                "churn_probability": said,
                "churn_horizon_days": answer.get("horizon_days"),
                "churn_band": answer.get("band"),
                **{f"p_purchase_{days}d": (when.get("p") or {}).get(str(days)) for days in HORIZONS},
                **{f"next_purchase_days_{name}": (when.get("days") or {}).get(name) for name in QUANTILES},
                "expected_value": spend,
                "value_horizon_days": over.get("horizon_days"),
                "rfm": answer.get("rfm"),
                "fallback": any(each.get("fallback") for each in (answer, when, over)),
                **{f"{model}_version": versions.get(model) for model in MODELS},
            }
        )
    return named(shop, rows, SCORES)


def timing(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """The chance of a purchase within d days, d = 1, 2, ..., as a list that never falls."""
    said = answers(shop, "timing", as_of)
    moment = said.attrs.get("as_of")
    rows = [
        {"customer_key": key, "as_of": moment, "cdf": answer.get("cdf", [])}
        for key, answer in zip(said["customer_key"], said["answer"], strict=True)
    ]
    return named(shop, rows, TIMING)


def recommendations(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """A row a customer, list and rank."""
    said = answers(shop, "recommender", as_of)
    rows = [
        (key, list_, rank, product, score, source, grounds)
        for key, answer in zip(said["customer_key"], said["answer"], strict=True)
        for list_ in ("any", "again", "new")
        for rank, (product, score, source, *grounds) in enumerate(answer.get(list_) or [], 1)
    ]
    columns = ["customer_key", "list", "rank", "product_key", "score", "source", "grounds"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["reason"] = reasons.speak(shop, zip(frame["customer_key"], frame["source"], frame["grounds"], strict=True))
    guarded, _ = catalogue.sensitive(shop)
    frame = _ranked(discreet(shop, frame, frame["product_key"].isin(guarded)), ["customer_key", "list"])
    frame["product_id"] = frame["product_key"].map(catalogue.ids_of(shop, frame["product_key"].unique()))
    return named(shop, frame, RECOMMENDATIONS)


def offers(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """A row a customer and offer that may still be made to them, the likeliest to be redeemed first."""
    said = answers(shop, "offers", as_of)
    rows = [
        (key, *item)
        for key, answer in zip(said["customer_key"], said["answer"], strict=True)
        for item in answer.get("items") or []
    ]
    frame = pd.DataFrame(rows, columns=["customer_key", "offer_key", "score", "expected_gain", "reason"])
    frame = frame[validity.may_be_made(shop, frame, as_of=as_of)]
    frame["reason"] = reasons.of_offers(shop, zip(frame["customer_key"], frame["reason"], strict=True))
    book = catalogue_of_offers.book(shop).offers.set_index("offer_key")
    about = book.rename(columns={"ends_at": "expires_at"})[["campaign_id", "expires_at"]]
    frame = frame.merge(about, left_on="offer_key", right_index=True)
    frame["offer_id"] = frame["offer_key"].map(catalogue_of_offers.ids_of(shop, frame["offer_key"].unique()))
    return named(shop, _ranked(frame.assign(rank=0), ["customer_key"]), OFFERS)


def restock(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """A row a customer and category: how soon it is likely to be bought again."""
    said = answers(shop, "restock", as_of)
    rows = [
        (key, *item)
        for key, answer in zip(said["customer_key"], said["answer"], strict=True)
        for item in answer.get("items") or []
    ]
    chances = [f"p_{days}d" for days in HORIZONS[:3]]
    frame = pd.DataFrame(rows, columns=["customer_key", "category", *chances, "wait_days"])
    _, guarded = catalogue.sensitive(shop)
    frame = discreet(shop, frame, frame["category"].isin(guarded))
    now, moment = as_of or clock.now(shop), said.attrs.get("as_of")
    awaited = {
        wait: clock.expected_at(moment, int(wait), shop.zone, now=now)
        for wait in frame["wait_days"].dropna().unique()
        if moment is not None
    }
    return named(shop, frame.assign(expected_at=frame["wait_days"].map(awaited)), RESTOCK)


def _ranked(frame: pd.DataFrame, within: list[str]) -> pd.DataFrame:
    """Ranks from 1 in each list, in the order of the rows, also where some rows were left out."""
    return frame.assign(rank=frame.groupby(within, sort=False).cumcount() + 1)


def customers(shop: Shop, *, as_of: datetime | None = None) -> pd.DataFrame:
    """Every customer with what they bought before `as_of`, if given, and their attributes; nothing personal."""
    with database.reading(shop) as connection:
        frame = pd.DataFrame(connection.execute(_with_purchases(shop, as_of)).mappings().all())
        said = connection.execute(sa.select(attributes)).mappings().all()
    if frame.empty:
        return named(shop, [], CUSTOMERS)
    frame["orders"] = frame["orders"].fillna(0)
    frame["stage"] = np.where(frame["orders"] > 0, "customer", frame["stage"])
    frame["spent"] = frame["spent"].fillna(0).astype("float64") / 10 ** money.EXPONENTS[shop.currency]
    frame["currency"] = shop.currency
    for name in ("joined_at", "first_purchase_at", "last_purchase_at"):
        frame[name] = pd.to_datetime(frame[name].astype("Int64"), unit="us", utc=True)
    facts = pd.DataFrame(said, columns=["customer_key", "name", "value"])
    wide = facts.pivot(index="customer_key", columns="name", values="value")
    wide = wide.drop(columns=[name for name in wide if name in CUSTOMERS])
    frame = frame.merge(wide, how="left", left_on="customer_key", right_index=True)
    return named(shop, frame, CUSTOMERS | dict.fromkeys(map(str, wide), "object"))


def _with_purchases(shop: Shop, as_of: datetime | None) -> sa.Select:
    lines = transactions.c
    is_sale = lines.kind == "sale"
    own = sa.case((lines.currency == shop.currency, lines.amount_minor), else_=0)
    bought = (
        sa.select(
            lines.customer_key,
            sa.func.count(sa.case((is_sale, lines.order_key)).distinct()).label("orders"),
            sa.func.min(sa.case((is_sale, lines.sold_at))).label("first_purchase_at"),
            sa.func.max(sa.case((is_sale, lines.sold_at))).label("last_purchase_at"),
            sa.func.sum(own).label("spent"),
        )
        .where(sa.true() if as_of is None else lines.sold_at < micros(as_of))
        .group_by(lines.customer_key)
        .subquery()
    )
    facts = [column for column in bought.c if column.name != "customer_key"]
    same = bought.c.customer_key == known_customers.c.customer_key
    return sa.select(known_customers, *facts).outerjoin(bought, same).order_by(known_customers.c.customer_key)


TABLES: dict[str, Callable[..., pd.DataFrame]] = {
    "scores": scores,
    "timing": timing,
    "recommendations": recommendations,
    "offers": offers,
    "restock": restock,
    "at-risk": at_risk,
    "customers": customers,
}

__all__ = ["AT_RISK", "TABLES", "at_risk", "customers", "offers", "recommendations", "restock", "scores", "table"]
