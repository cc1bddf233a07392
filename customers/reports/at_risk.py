"""The at-risk list: customers by churn risk, with value at risk, days overdue, reasons, offer and contact channels."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import duckdb
import pandas as pd
import pyarrow as pa

from customers import clock
from customers.catalogue import products
from customers.ledger import interactions
from customers.loading.sql_text import quote_literal
from customers.marketing import offers, stored_offers
from customers.parquet import mirror
from customers.privacy import consents
from customers.reports import recommendation_reasons
from customers.reports.sort_orders import SORT_COLUMNS
from customers.scores import uplift_result
from customers.scores.score_frames import load_score_details, with_customer_ids
from customers.shop import money
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

AT_RISK_COLUMNS = {
    "customer_id": "object",
    "as_of": "datetime64[us, UTC]",
    "churn_probability": "float64",
    "churn_band": "object",
    "value_at_risk": "float64",
    "saved_value": "float64",
    "last_purchase_at": "datetime64[us, UTC]",
    "expected_next_purchase_at": "datetime64[us, UTC]",
    "days_overdue": "float64",
    "open_complaints": "Int64",
    "reasons": "object",
    "suggested_offer_id": "object",
    "contactable": "object",
}

# Customers in these bands can still be retained; "lapsed" ones have left, "low" ones are not at risk.
BANDS = ("high", "medium")


def list_at_risk(
    shop: Shop,
    *,
    as_of: datetime | None = None,
    n: int | None = None,
    min_value: float | None = None,
    segment: str | None = None,
    bands: Sequence[str] = BANDS,
    order: str = "probability",
    include_online: bool = False,
) -> pd.DataFrame:
    """At-risk customers, a row per customer in the columns of AT_RISK_COLUMNS; the first `n`, or all.

    Highest churn probability first, or in another order of SORT_COLUMNS. Rows with a value at risk below `min_value`
    (shop's currency) are left out. `as_of` selects that run, default the newest; `include_online` uses also scores made
    since the newest run, and sales that the mirror does not have yet.
    """
    ranked_rows = rank_customers(shop, as_of=as_of, segment=segment, order=order, include_online=include_online)
    ranked_rows = ranked_rows[ranked_rows["churn_band"].isin(list(bands))]
    if min_value is not None:
        ranked_rows = ranked_rows[ranked_rows["value_at_risk"] >= min_value]
    return add_details(shop, ranked_rows[:n], as_of=as_of, include_online=include_online)


def rank_customers(
    shop: Shop,
    *,
    as_of: datetime | None = None,
    segment: str | None = None,
    order: str = "probability",
    include_online: bool = False,
) -> pd.DataFrame:
    """All customers with a churn score, sorted by `order`, with only the columns for sorting (see `add_details`).

    Columns customer_key, as_of, churn_probability, churn_band, value_at_risk, saved_value, the last two in the shop's
    currency. Customers without a value in the sort column come last, by falling churn probability. Raises ShopError
    for any `segment`, since there are no segments yet, and for an unknown `order`.
    """
    if segment is not None:
        raise ShopError(f"there is no segment {segment!r}; the shop has none yet, so leave the segment out")
    if order not in SORT_COLUMNS:
        raise ShopError(f"a list cannot be ordered by {order!r}; take one of {', '.join(SORT_COLUMNS)}")
    churn = load_score_details(shop, "churn", as_of, include_online=include_online)
    ranked_rows = churn[["customer_key", "as_of"]].assign(
        churn_probability=churn["value"], churn_band=[detail.band for detail in churn["detail"]]
    )
    value = load_score_details(shop, "value", as_of, include_online=include_online).set_index("customer_key")["value"]
    expected_value = ranked_rows["customer_key"].map(value).astype("float64")
    exponent = money.EXPONENTS[shop.currency]
    ranked_rows["value_at_risk"] = (expected_value * ranked_rows["churn_probability"]).round(exponent)
    keys, churn_probability = ranked_rows["customer_key"], ranked_rows["churn_probability"]
    saved_value = uplift_result.estimate_saved_value(
        shop, keys, expected_value, churn_probability, as_of=as_of, include_online=include_online
    )
    ranked_rows["saved_value"] = saved_value.round(exponent)
    sort_columns = list(dict.fromkeys([SORT_COLUMNS[order], "churn_probability"]))
    ranked_rows = ranked_rows.sort_values(
        [*sort_columns, "customer_key"], ascending=[*[False] * len(sort_columns), True], kind="stable"
    )
    ranked_rows.attrs = churn.attrs
    return ranked_rows.reset_index(drop=True)


def add_details(
    shop: Shop, ranked_rows: pd.DataFrame, *, as_of: datetime | None = None, include_online: bool = False
) -> pd.DataFrame:
    """Details for rows of `rank_customers`, in their order: a row per customer, columns of AT_RISK_COLUMNS."""
    keys = ranked_rows["customer_key"]
    visits = _visit_facts(shop, ranked_rows)
    churn_answers = load_score_details(shop, "churn", as_of, include_online=include_online, keys=keys).set_index(
        "customer_key"
    )["detail"]
    sensitive_categories = products.load_sensitive(shop)[1]
    reason_lists = churn_answers.map(
        lambda detail: recommendation_reasons.without_sensitive_reasons(detail, sensitive_categories).reasons or []
    )
    frame = ranked_rows.assign(
        last_purchase_at=keys.map(visits["last_purchase_at"]),
        expected_next_purchase_at=keys.map(_expected_purchases(shop, keys, as_of, include_online)),
        days_overdue=keys.map(visits["days_overdue"]),
        open_complaints=keys.map(interactions.count_open_complaints(shop, as_of)).fillna(0),
        reasons=keys.map(reason_lists),
        suggested_offer_id=keys.map(_suggested_offers(shop, keys, as_of, include_online)),
        contactable=keys.map(consents.allowed_channels(shop, keys)),
    )
    return with_customer_ids(shop, frame, AT_RISK_COLUMNS)


def _expected_purchases(
    shop: Shop, keys: pd.Series, as_of: datetime | None, include_online: bool
) -> dict[int, datetime]:
    """The median time of the next purchase of each customer, by the timing model."""
    timing = load_score_details(shop, "timing", as_of, include_online=include_online, keys=keys)
    now = as_of or clock.now(shop)
    expected_cache: dict[tuple[datetime, int], datetime] = {}
    expected_by_customer = {}
    for key, scored_at, detail in zip(timing["customer_key"], timing["as_of"], timing["detail"], strict=True):
        median_days = detail.quantile_days("p50")
        if median_days is not None:
            cache_key = scored_at, int(median_days)
            if cache_key not in expected_cache:
                expected_cache[cache_key] = clock.expected_purchase_at(scored_at, int(median_days), shop.zone, now=now)
            expected_by_customer[key] = expected_cache[cache_key]
    return expected_by_customer


def _suggested_offers(shop: Shop, keys: pd.Series, as_of: datetime | None, include_online: bool) -> dict[int, str]:
    """The id of the best stored offer of each customer for which the customer is still eligible."""
    stored = load_score_details(shop, "offers", as_of, include_online=include_online, keys=keys)
    stored = stored[stored["customer_key"].isin(keys)]
    candidates = pd.DataFrame(
        [
            (key, offer.offer_key)
            for key, detail in zip(stored["customer_key"], stored["detail"], strict=True)
            for offer in detail.iter_offers()
        ],
        columns=["customer_key", "offer_key"],
    )
    best = candidates[stored_offers.is_still_eligible(shop, candidates, as_of=as_of)].drop_duplicates("customer_key")
    return dict(zip(best["customer_key"], best["offer_key"].map(offers.find_ids(shop, best["offer_key"])), strict=True))


def _visit_facts(shop: Shop, churn: pd.DataFrame) -> pd.DataFrame:
    """Last purchase before each row's as_of, and days overdue; indexed by customer_key.

    Purchases of sensitive products are excluded for customers who do not allow profiling on them.
    """
    sensitive_keys = frozenset(products.load_sensitive(shop)[0])
    visits = _combined_visit_facts(shop, churn, sensitive_keys)
    if not sensitive_keys:
        return visits
    allowed_keys = list(consents.allowed_customers(shop, churn["customer_key"], "profiling_sensitive"))
    unrestricted = _combined_visit_facts(shop, churn[churn["customer_key"].isin(allowed_keys)], frozenset())
    return pd.concat([visits[~visits.index.isin(allowed_keys)], unrestricted[unrestricted.index.isin(allowed_keys)]])


def _combined_visit_facts(shop: Shop, churn: pd.DataFrame, sensitive_keys: frozenset[int]) -> pd.DataFrame:
    """From the mirror; for customers with a later as_of than the run (scored online), from the database."""
    run_as_of = churn.attrs.get("as_of")
    files = sorted(shop.ledger.glob("month=*/part.parquet"))
    visits = _mirrored_visit_facts(
        shop, run_as_of, tuple((str(file), file.stat().st_mtime_ns) for file in files), sensitive_keys
    )
    updated = churn.loc[churn["as_of"] != run_as_of, ["customer_key", "as_of"]]
    if updated.empty:
        return visits
    return pd.concat(
        [visits[~visits.index.isin(updated["customer_key"])], _ledger_visit_facts(shop, updated, sensitive_keys)]
    )


@lru_cache(maxsize=4)
def _mirrored_visit_facts(
    shop: Shop, run_as_of: datetime | None, files: tuple[tuple[str, int], ...], sensitive_keys: frozenset[int]
) -> pd.DataFrame:
    """For all customers in these files, as of a run; cached until a file changes."""
    if run_as_of is None or not files:
        return pd.DataFrame({"last_purchase_at": pd.to_datetime([], utc=True), "days_overdue": []})
    file_list = ", ".join(quote_literal(file) for file, _ in files)
    with duckdb.connect() as connection:
        connection.execute(f"create view lines as from read_parquet([{file_list}])")
        connection.execute(
            f"create view cutoffs as select distinct customer_key, {to_micros(run_as_of)} as at_us from lines"
        )
        return _compute_overdue(shop, connection, sensitive_keys)


def _ledger_visit_facts(shop: Shop, updated: pd.DataFrame, sensitive_keys: frozenset[int]) -> pd.DataFrame:
    """For these customers, each as of its own as_of, from the database."""
    as_of_columns = {"customer_key": updated["customer_key"], "at_us": updated["as_of"].map(to_micros)}
    with duckdb.connect() as connection:
        connection.register("lines", mirror.load_lines(shop, updated["customer_key"].tolist()))
        connection.register("cutoffs", pa.table({name: pa.array(column) for name, column in as_of_columns.items()}))
        return _compute_overdue(shop, connection, sensitive_keys)


def _compute_overdue(shop: Shop, connection: duckdb.DuckDBPyConnection, sensitive_keys: frozenset[int]) -> pd.DataFrame:
    """Columns last_purchase_at and days_overdue (days since the last purchase day beyond the median gap, at least 0).

    Computed over `lines` (columns of the mirror) as of `cutoffs` (customer_key, at_us), without sensitive products. A
    purchase day is defined as for the models: the amount paid exceeds the amount returned, or a sale has no amount.
    """
    zone = quote_literal(shop.timezone)
    connection.execute("set timezone = 'UTC'")
    connection.register("sensitive_products", pa.table({"product_key": pa.array(sorted(sensitive_keys), pa.int64())}))
    query = f"""
        with days as (
          select l.customer_key, cast(timezone({zone}, l.sold_at) as date) as day,
                 max(l.sold_at) filter (l.kind = 'sale') as last_at,
                 any_value(cast(timezone({zone}, make_timestamptz(m.at_us)) as date)) as today
          from lines l join cutoffs m using (customer_key)
          where epoch_us(l.sold_at) < m.at_us and epoch_us(l.known_at) < m.at_us
            and (l.superseded_at is null or epoch_us(l.superseded_at) >= m.at_us)
            and l.product_key not in (select product_key from sensitive_products)
          group by all
          having round(10000 * sum(case when l.kind = 'sale' then l.amount else -abs(l.amount) end)) > 0
              or bool_or(l.kind = 'sale' and l.amount is null)),
        gaps as (select *, day - lag(day) over (partition by customer_key order by day) as gap from days)
        select customer_key, max(last_at) as last_purchase_at,
               case when count(gap) > 0 then greatest(0, any_value(today) - max(day) - median(gap)) end as days_overdue
        from gaps group by customer_key"""
    return connection.execute(query).df().set_index("customer_key")
