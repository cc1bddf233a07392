"""The list items of responses: products, categories and offers, under the ids of the shop's own systems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import clock
from customers.catalogue import products as catalogue_products
from customers.reports import recommendation_reasons
from customers.scores import score_details
from customers.shop.merchandising_rules import PARSERS, MerchandisingRules
from models.registry.bundle import Champion
from serving.api.requested_customers import to_datetime
from serving.api.schemas.common import Product
from serving.api.schemas.predictions import Days, Offer, RunningOut
from serving.api.schemas.recommendations import RecommendationQuestion, Short
from serving.recommendations import evidence, merchandising, short_lists
from serving.runtime import UNKNOWN_CUSTOMER, ServerRuntime
from serving.scoring import fallback, recommender, restock, timing, value
from serving.scoring.offers import RankedOffers
from serving.scoring.recommender import RecommendedLists


@dataclass(frozen=True)
class SelectedProducts:
    """The selected products, who gets fewer than requested and why, and notes on rules without effect.

    listed: columns customer_key, list, rank, product_key, score, source and the evidence, a row per list entry.
    """

    listed: pd.DataFrame
    shortages: Mapping[int, short_lists.Shortage]
    notes: list[str]


def build_next_purchase_fields(runtime: ServerRuntime, prediction: timing.ReturnPrediction) -> list[dict[str, Any]]:
    """The fields p, days and expected_at of each customer, a dict per row of the frame.

    frame: column as_of, aligned with the prediction; as_of is now where it is NaT.
    """
    days, now, zone = prediction.list_quantile_days(), runtime.now(), runtime.shop.zone
    probabilities = prediction.list_window_probabilities()
    as_of_by_row = [to_datetime(at) or now for at in prediction.frame["as_of"]]
    return [
        {
            "p": {str(within): values[row] for within, values in probabilities.items()},
            "days": Days(**{name: at[row] for name, at in days.items()}),
            "expected_at": None
            if median_days is None
            else clock.expected_purchase_at(as_of_by_row[row], median_days, zone, now=now),
        }
        for row, median_days in enumerate(days["p50"])
    ]


def select_products(
    champion: Champion,
    question: RecommendationQuestion,
    recommended: RecommendedLists,
    runtime: ServerRuntime,
    *,
    include_unknown: bool = True,
) -> SelectedProducts:
    """Select the requested list of each customer, under the shop's rules combined with those of the request.

    `include_unknown`: whether to select one for UNKNOWN_CUSTOMER too. Rules that
    match no product are named in `notes`.
    """
    if not include_unknown:
        recommended = replace(
            recommended, frame=recommended.frame[recommended.frame["customer_key"] != UNKNOWN_CUSTOMER]
        )
    requested_rules = {name: getattr(question, name) for name in PARSERS}
    active_rules = merchandising.load_active_rules(
        runtime.shop, recommended.active_rules.now, runtime.shop.recommendations.merged_with(requested_rules)
    )
    # A customer without purchases has nothing to buy again: they get the best sellers, whichever list was requested.
    list_names = np.where(fallback.has_features(recommended.frame), question.list, "any")
    ranked = recommended.ranked
    if active_rules.rules != recommended.active_rules.rules:
        ranked = _rerank(champion, recommended, active_rules, list_names, question.n)
    row_list = pd.Series(list_names, recommended.frame["customer_key"]).reindex(ranked["customer_key"]).to_numpy()
    listed = ranked[(ranked["list"].to_numpy() == row_list) & (ranked["rank"].to_numpy() <= question.n)]
    history = recommended.frame.assign(requested_list=list_names)
    shortages = short_lists.explain_shortages(
        active_rules, history, listed, question.n, hidden=recommended.hidden, consenting=recommended.consenting
    )
    return SelectedProducts(
        listed, shortages, short_lists.unmet_rule_notes(active_rules, MerchandisingRules().merged_with(requested_rules))
    )


def _rerank(
    champion: Champion,
    recommended: RecommendedLists,
    active_rules: merchandising.ActiveRules,
    list_names: NDArray[Any],
    n: int,
) -> pd.DataFrame:
    """Rank again under other rules; where these only exclude more, the lists just made are filtered instead."""
    options: dict[str, Any] = {
        "n": n,
        "hidden": recommended.hidden,
        "consenting": recommended.consenting,
        "favourites_by_key": recommended.favourites_by_key,
    }
    is_stricter = not recommended.active_rules.has_reordering and bool(
        np.isin(recommended.active_rules.excluded_keys, active_rules.excluded_keys).all()
    )
    has_history = fallback.has_features(recommended.frame)
    parts = []
    for name, history_flag in sorted({*zip(list_names.tolist(), has_history.tolist(), strict=True)}):
        history = recommended.frame[(list_names == name) & (has_history == history_flag)]
        previous = (
            recommended.ranked[recommended.ranked["customer_key"].isin(history["customer_key"])]
            if is_stricter and history_flag
            else None
        )
        parts.append(
            recommender.score_lists(champion.model, history, active_rules, names=[name], previous=previous, **options)
        )
    return pd.concat(parts, ignore_index=True)


def build_shortages(selection: SelectedProducts) -> dict[int, Short]:
    """The shortages by customer key, for the customers with fewer products than requested."""
    return {
        key: Short(missing=shortfall.missing, rules=shortfall.rules, reason=shortfall.reason)
        for key, shortfall in selection.shortages.items()
    }


def build_product_items(runtime: ServerRuntime, ranked: pd.DataFrame) -> dict[int, list[Product]]:
    """Response items by customer key, best first.

    ranked: columns customer_key, product_key, rank, score, source, and those of evidence.EVIDENCE_COLUMNS.
    """
    names = catalogue_products.find_ids(runtime.shop, [int(key) for key in ranked["product_key"].unique()])
    ranked = ranked.assign(reason=evidence.reason_texts(runtime.shop, ranked))
    items_by_key: dict[int, list[Product]] = {}
    columns = ("customer_key", "rank", "product_key", "score", "source", "reason")
    for customer, rank, product, score, source, reason in _iter_rows(ranked, *columns):
        item = Product(rank=rank, product_id=names[product], score=score, source=source, reason=reason)
        items_by_key.setdefault(customer, []).append(item)
    return items_by_key


def build_restock_items(runtime: ServerRuntime, frame: pd.DataFrame, rows: pd.DataFrame) -> dict[int, list[RunningOut]]:
    """Response items by customer key, most probable first.

    frame: columns customer_key, as_of. rows: columns customer_key, category, p, wait_days (median days, NaN if none)
    and those of restock.EVIDENCE_COLUMNS.
    """
    now, zone = runtime.now(), runtime.shop.zone
    as_of_by_key = {key: to_datetime(at) or now for key, at in _iter_rows(frame, "customer_key", "as_of")}
    expected_dates: dict[tuple[datetime, float], datetime] = {}
    items_by_key: dict[int, list[RunningOut]] = {}
    columns = ("customer_key", "category", "p", "wait_days", *restock.EVIDENCE_COLUMNS)
    for key, category, p, median_days, *evidence_values in _iter_rows(rows, *columns):
        cache_key = as_of_by_key[key], median_days
        if median_days == median_days and cache_key not in expected_dates:
            expected_dates[cache_key] = clock.expected_purchase_at(as_of_by_key[key], int(median_days), zone, now=now)
        item = RunningOut(
            category=category,
            p=p,
            expected_at=expected_dates.get(cache_key),
            reason=recommendation_reasons.repeat_reason(*evidence_values),
        )
        items_by_key.setdefault(key, []).append(item)
    return items_by_key


def build_offer_items(runtime: ServerRuntime, ranked: pd.DataFrame, offered: RankedOffers) -> dict[int, list[Offer]]:
    """Response items by row of the customer, best first.

    ranked: columns row, column (of the offer table), rank, customer_key, p, expected_gain, gain_basis, source, reason,
    evidence_key, days.
    """
    listed = offered.table.offers.take(ranked["column"].to_numpy(np.int64))
    labels = _iter_rows(listed.astype({"campaign_id": object}), "public_id", "campaign_id", "ends_at")
    reason_texts = recommendation_reasons.offer_reasons(
        runtime.shop, zip(ranked["customer_key"].tolist(), score_details.encode_offer_reasons(ranked), strict=True)
    )
    columns = ("row", "rank", "p", "expected_gain", "gain_basis", "source")
    items_by_row: dict[int, list[Offer]] = {}
    for (row, rank, p, gain, basis, source), reason, (offer_id, campaign, ends_at) in zip(
        _iter_rows(ranked, *columns), reason_texts, labels, strict=True
    ):
        item = Offer(
            rank=rank,
            offer_id=offer_id,
            campaign_id=campaign,
            score=p,
            expected_gain=None if np.isnan(gain) else value.format_amount(gain, runtime.shop.currency),
            gain_basis=basis,
            currency=runtime.shop.currency,
            source=source,
            reason=reason,
            expires_at=ends_at,
        )
        items_by_row.setdefault(row, []).append(item)
    return items_by_row


def _iter_rows(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in columns), strict=True)
