"""Tables exported to campaign engines and BI tools, a row per customer unless stated otherwise.

Other programs rely on the columns: they do not change, and an empty table has all of them.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import sqlalchemy as sa

from customers import clock
from customers.catalogue import products
from customers.database import engine
from customers.database.schema import attributes, customers, transactions
from customers.marketing import offers as marketing_offers
from customers.marketing import stored_offers
from customers.reports import recommendation_reasons
from customers.reports.at_risk import list_at_risk
from customers.scores import score_store
from customers.scores.score_details import LIST_NAMES, TimingDetail, ValueDetail
from customers.scores.score_frames import load_score_details, with_customer_ids, without_disallowed_sensitive
from customers.shop import money
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

LARGEST_KEY = 2**63 - 1
HORIZONS = (7, 14, 28, 90)
QUANTILES = ("p10", "p50", "p90")
MODELS = ("recommender", "offers", "churn", "timing", "restock", "value")
SCORE_COLUMNS = {
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
TIMING_COLUMNS = {"customer_id": "object", "as_of": "datetime64[us, UTC]", "cdf": "object"}
RECOMMENDATION_COLUMNS = {
    "customer_id": "object",
    "list": "object",
    "rank": "int64",
    "product_id": "object",
    "score": "float64",
    "source": "object",
    "reason": "object",
}
OFFER_COLUMNS = {
    "customer_id": "object",
    "rank": "int64",
    "offer_id": "object",
    "campaign_id": "object",
    "score": "float64",
    "expected_gain": "float64",
    "expires_at": "datetime64[us, UTC]",
    "reason": "object",
}
RESTOCK_COLUMNS = {
    "customer_id": "object",
    "category": "object",
    **{f"p_{days}d": "float64" for days in HORIZONS[:3]},
    "expected_at": "datetime64[us, UTC]",
}
CUSTOMER_COLUMNS = {
    "customer_id": "object",
    "stage": "object",
    "joined_at": "datetime64[us, UTC]",
    "orders": "int64",
    "first_purchase_at": "datetime64[us, UTC]",
    "last_purchase_at": "datetime64[us, UTC]",
    "spent": "float64",
    "currency": "object",
}


#: Of so many customers at a time a table is made: some 300,000 rows at most.
CUSTOMERS_AT_ONCE = {"recommendations": 2_000, "offers": 10_000, "restock": 5_000}
OTHERS_AT_ONCE = 20_000


def iter_tables(shop: Shop, name: str, *, as_of: datetime | None = None) -> Iterator[pd.DataFrame]:
    """The rows of `build_table` in portions of customers, which together have its rows in its order; at least one.

    Every portion has all columns. Table at-risk comes whole. Raises ShopError for an unknown name.
    """
    for key_range in list_portions(shop, name):
        yield build_portion(shop, name, key_range, as_of=as_of)


def list_portions(shop: Shop, name: str) -> list[range | None]:
    """The ranges of customer keys into which a table is cut; only None for one that comes whole.

    Raises ShopError for an unknown name.
    """
    if name not in TABLES:
        raise ShopError(f"unknown table {name!r}; there are {', '.join(TABLES)}")
    if name == "at-risk":  # sorted by risk, not by customer
        return [None]
    return [*_key_ranges(shop, CUSTOMERS_AT_ONCE.get(name, OTHERS_AT_ONCE))]


def build_portion(shop: Shop, name: str, key_range: range | None, *, as_of: datetime | None = None) -> pd.DataFrame:
    """The rows of one portion of `list_portions`, with all columns of the table."""
    if key_range is None:
        return build_table(shop, name, as_of=as_of)
    return TABLES[name](shop, as_of=as_of, key_range=key_range)


def _key_ranges(shop: Shop, size: int) -> list[range]:
    """Ranges of customer keys with `size` customers each; together they have every key."""
    query = sa.select(customers.c.customer_key).order_by(customers.c.customer_key)
    with engine.read_transaction(shop) as connection:
        firsts = [rows[0][0] for rows in engine.fetch_batches(connection, query, size)]
    return [range(*pair) for pair in pairwise([0, *firsts[1:], LARGEST_KEY])]


def build_table(shop: Shop, name: str, *, as_of: datetime | None = None) -> pd.DataFrame:
    """The export table of a name, in its constant columns; from the runs as of `as_of`, default the newest ones.

    Raises ShopError for an unknown name.
    """
    if name not in TABLES:
        raise ShopError(f"unknown table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](shop, as_of=as_of)


def build_scores(shop: Shop, *, as_of: datetime | None = None, key_range: range | None = None) -> pd.DataFrame:
    """A row per customer with a churn score, columns of SCORE_COLUMNS: churn, timing and value in one table."""
    churn = load_score_details(shop, "churn", as_of, key_range=key_range)
    timing_details = (
        load_score_details(shop, "timing", as_of, key_range=key_range).set_index("customer_key")["detail"].to_dict()
    )
    value_frame = load_score_details(shop, "value", as_of, key_range=key_range)
    values_by_customer = dict(
        zip(value_frame["customer_key"], zip(value_frame["value"], value_frame["detail"], strict=True), strict=True)
    )
    versions = {model: run.version for model in MODELS if (run := score_store.newest_run(shop, model, as_of))}
    rows = []
    no_timing, no_value = TimingDetail(), (None, ValueDetail())
    for key, probability, churn_detail in zip(churn["customer_key"], churn["value"], churn["detail"], strict=True):
        timing_detail = timing_details.get(key, no_timing)
        expected_value, value_detail = values_by_customer.get(key, no_value)
        rows.append(
            {
                "customer_key": key,
                "as_of": churn.attrs.get("as_of"),
                "churn_probability": probability,
                "churn_horizon_days": churn_detail.horizon_days,
                "churn_band": churn_detail.band,
                **{f"p_purchase_{days}d": timing_detail.probability_within(days) for days in HORIZONS},
                **{f"next_purchase_days_{name}": timing_detail.quantile_days(name) for name in QUANTILES},
                "expected_value": expected_value,
                "value_horizon_days": value_detail.horizon_days,
                "rfm": churn_detail.rfm,
                "fallback": any(each.fallback for each in (churn_detail, timing_detail, value_detail)),
                **{f"{model}_version": versions.get(model) for model in MODELS},
            }
        )
    return with_customer_ids(shop, rows, SCORE_COLUMNS)


def build_timing(shop: Shop, *, as_of: datetime | None = None, key_range: range | None = None) -> pd.DataFrame:
    """A row per customer, columns of TIMING_COLUMNS; cdf is the list of P(purchase within d days) for d = 1, 2, ..."""
    stored = load_score_details(shop, "timing", as_of, key_range=key_range)
    scored_at = stored.attrs.get("as_of")
    rows = [
        {"customer_key": key, "as_of": scored_at, "cdf": detail.cdf or []}
        for key, detail in zip(stored["customer_key"], stored["detail"], strict=True)
    ]
    return with_customer_ids(shop, rows, TIMING_COLUMNS)


def build_recommendations(shop: Shop, *, as_of: datetime | None = None, key_range: range | None = None) -> pd.DataFrame:
    """A row per customer, list and rank, columns of RECOMMENDATION_COLUMNS."""
    stored = load_score_details(shop, "recommender", as_of, key_range=key_range)
    rows = [
        (key, list_name, *product)
        for key, detail in zip(stored["customer_key"], stored["detail"], strict=True)
        for list_name in LIST_NAMES
        for product in detail.iter_products(list_name)
    ]
    columns = ["customer_key", "list", "rank", "product_key", "score", "source", "evidence"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["reason"] = recommendation_reasons.product_reasons(
        shop, zip(frame["customer_key"], frame["source"], frame["evidence"], strict=True)
    )
    sensitive_keys, _ = products.load_sensitive(shop)
    frame = _renumber_ranks(
        without_disallowed_sensitive(shop, frame, frame["product_key"].isin(sensitive_keys)), ["customer_key", "list"]
    )
    frame["product_id"] = frame["product_key"].map(products.find_ids(shop, frame["product_key"].unique()))
    return with_customer_ids(shop, frame, RECOMMENDATION_COLUMNS)


def build_offers(shop: Shop, *, as_of: datetime | None = None, key_range: range | None = None) -> pd.DataFrame:
    """A row per customer and offer for which the customer is still eligible, columns of OFFER_COLUMNS.

    In the order of the stored run: likeliest redemption first.
    """
    stored = load_score_details(shop, "offers", as_of, key_range=key_range)
    rows = [
        (key, *offer)
        for key, detail in zip(stored["customer_key"], stored["detail"], strict=True)
        for offer in detail.iter_offers()
    ]
    frame = pd.DataFrame(rows, columns=["customer_key", "offer_key", "score", "expected_gain", "reason"])
    frame = frame[stored_offers.is_still_eligible(shop, frame, as_of=as_of)]
    frame["reason"] = recommendation_reasons.offer_reasons(
        shop, zip(frame["customer_key"], frame["reason"], strict=True)
    )
    offer_catalogue = marketing_offers.load_catalogue(shop).offers.set_index("offer_key")
    offer_details = offer_catalogue.rename(columns={"ends_at": "expires_at"})[["campaign_id", "expires_at"]]
    frame = frame.merge(offer_details, left_on="offer_key", right_index=True)
    frame["offer_id"] = frame["offer_key"].map(marketing_offers.find_ids(shop, frame["offer_key"].unique()))
    return with_customer_ids(shop, _renumber_ranks(frame.assign(rank=0), ["customer_key"]), OFFER_COLUMNS)


def build_restock(shop: Shop, *, as_of: datetime | None = None, key_range: range | None = None) -> pd.DataFrame:
    """A row per customer and category, columns of RESTOCK_COLUMNS: probability and time of the next purchase."""
    stored = load_score_details(shop, "restock", as_of, key_range=key_range)
    rows = [
        (key, *category)
        for key, detail in zip(stored["customer_key"], stored["detail"], strict=True)
        for category in detail.iter_categories()
    ]
    probability_columns = [f"p_{days}d" for days in HORIZONS[:3]]
    frame = pd.DataFrame(rows, columns=["customer_key", "category", *probability_columns, "wait_days"])
    _, sensitive_categories = products.load_sensitive(shop)
    frame = without_disallowed_sensitive(shop, frame, frame["category"].isin(sensitive_categories))
    now, scored_at = as_of or clock.now(shop), stored.attrs.get("as_of")
    expected_by_days = {
        days_ahead: clock.expected_purchase_at(scored_at, int(days_ahead), shop.zone, now=now)
        for days_ahead in frame["wait_days"].dropna().unique()
        if scored_at is not None
    }
    return with_customer_ids(shop, frame.assign(expected_at=frame["wait_days"].map(expected_by_days)), RESTOCK_COLUMNS)


def _renumber_ranks(frame: pd.DataFrame, group_columns: list[str]) -> pd.DataFrame:
    """Column rank counted from 1 in each group, in the order of the rows, after rows were removed."""
    return frame.assign(rank=frame.groupby(group_columns, sort=False).cumcount() + 1)


def build_customers(shop: Shop, *, as_of: datetime | None = None, key_range: range | None = None) -> pd.DataFrame:
    """A row per customer, columns of CUSTOMER_COLUMNS and one per attribute; no personal fields.

    Purchases before `as_of` where given, else all; spent in the shop's currency.
    """
    attribute_query = sa.select(attributes).where(_is_in_range(attributes, key_range))
    with engine.read_transaction(shop) as connection:
        frame = pd.DataFrame(connection.execute(_purchases_query(shop, as_of, key_range)).mappings().all())
        attribute_rows = connection.execute(attribute_query).mappings().all()
        attribute_names = sorted(connection.execute(sa.select(attributes.c.name).distinct()).scalars())
    if frame.empty:
        return with_customer_ids(shop, [], CUSTOMER_COLUMNS)
    frame["orders"] = frame["orders"].fillna(0)
    frame["stage"] = np.where(frame["orders"] > 0, "customer", frame["stage"])
    frame["spent"] = frame["spent"].fillna(0).astype("float64") / 10 ** money.EXPONENTS[shop.currency]
    frame["currency"] = shop.currency
    for name in ("joined_at", "first_purchase_at", "last_purchase_at"):
        frame[name] = pd.to_datetime(frame[name].astype("Int64"), unit="us", utc=True)
    attribute_frame = pd.DataFrame(attribute_rows, columns=["customer_key", "name", "value"])
    pivoted = attribute_frame.pivot(index="customer_key", columns="name", values="value")
    pivoted = pivoted.reindex(columns=[name for name in attribute_names if name not in CUSTOMER_COLUMNS])
    frame = frame.merge(pivoted, how="left", left_on="customer_key", right_index=True)
    return with_customer_ids(shop, frame, CUSTOMER_COLUMNS | dict.fromkeys(map(str, pivoted), "object"))


def _is_in_range(table: sa.Table, key_range: range | None) -> sa.ColumnElement[bool]:
    if key_range is None:
        return sa.true()
    return (table.c.customer_key >= key_range.start) & (table.c.customer_key < key_range.stop)


def _purchases_query(shop: Shop, as_of: datetime | None, key_range: range | None) -> sa.Select:
    lines = transactions.c
    is_sale = lines.kind == "sale"
    own_amount = sa.case((lines.currency == shop.currency, lines.amount_minor), else_=0)
    purchases = (
        sa.select(
            lines.customer_key,
            sa.func.count(sa.case((is_sale, lines.order_key)).distinct()).label("orders"),
            sa.func.min(sa.case((is_sale, lines.sold_at))).label("first_purchase_at"),
            sa.func.max(sa.case((is_sale, lines.sold_at))).label("last_purchase_at"),
            sa.func.sum(own_amount).label("spent"),
        )
        .where(sa.true() if as_of is None else lines.sold_at < to_micros(as_of), _is_in_range(transactions, key_range))
        .group_by(lines.customer_key)
        .subquery()
    )
    purchase_columns = [column for column in purchases.c if column.name != "customer_key"]
    is_same_customer = purchases.c.customer_key == customers.c.customer_key
    return (
        sa.select(customers, *purchase_columns)
        .outerjoin(purchases, is_same_customer)
        .where(_is_in_range(customers, key_range))
        .order_by(customers.c.customer_key)
    )


TABLES: dict[str, Callable[..., pd.DataFrame]] = {
    "scores": build_scores,
    "timing": build_timing,
    "recommendations": build_recommendations,
    "offers": build_offers,
    "restock": build_restock,
    "at-risk": list_at_risk,
    "customers": build_customers,
}
