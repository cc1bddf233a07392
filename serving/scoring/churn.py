"""Churn scores: P(no purchase within the horizon), its band and reasons, online and by night."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from customers.shop.retention_costs import Band, RetentionCosts
from models.base import ExplainableModel, Model
from models.registry.bundle import Champion
from serving.explanations import churn_reasons, lapsed_categories
from serving.runtime import FeatureCache, ServerRuntime
from serving.scoring import fallback, rfm, value
from serving.scoring import fallback as fallback_scoring
from serving.scoring.fallback import Flags, Floats


def encode_churn(frame: pd.DataFrame, prediction: ChurnPrediction) -> Iterator[ScoreRow]:
    """A row a customer: probability, and {"horizon_days", "band", "reasons", "weights", "rfm", "fallback"}.

    A weight is what its reason adds to the log odds of no purchase: below 0 it speaks for coming back.
    """
    columns = zip(
        frame["customer_key"].tolist(), prediction.probability.tolist(), prediction.band, prediction.reasons, prediction.rfm,
        prediction.fallback.tolist(), strict=True,
    )  # fmt: skip
    for key, probability, band, reasons, rfm_code, is_fallback in columns:
        detail = {
            "horizon_days": prediction.horizon_days,
            "band": band,
            "reasons": [text for text, _ in reasons],
            "weights": [round(weight, 2) for _, weight in reasons],
            "rfm": rfm_code,
            "fallback": is_fallback,
        }
        yield key, probability, score_details.dump_detail(detail)


def predict_churn(
    runtime: ServerRuntime, champion: Champion, keys: Sequence[int], feature_cache: FeatureCache | None = None
) -> tuple[ChurnPrediction, pd.DataFrame]:
    """How likely each is to stay away, and from which figures."""
    frame = runtime.load_features(champion, keys, feature_cache)

    def load_lapsed(places: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
        lapsed = lapsed_categories.find_lapsed(
            runtime.load_category_history([keys[row] for row in places]), runtime.get_inventory().sensitive_categories
        )
        return {places[row]: names for row, names in lapsed.items()}

    expected_spend = _expected_spend(runtime, keys, feature_cache)
    prediction = score_churn(
        champion.model,
        frame,
        runtime.load_rfm_quintiles(),
        costs=runtime.shop.retention,
        expected_spend=expected_spend,
        load_lapsed=load_lapsed,
    )
    scored = frame[~prediction.fallback]
    prediction = fallback.flag_fallback(prediction, fallback.uses_fallback(champion))
    runtime.store_scores(champion, scored, encode_churn(frame, prediction))
    return prediction, frame


def _expected_spend(
    runtime: ServerRuntime, keys: Sequence[int], feature_cache: FeatureCache | None
) -> fallback.Floats | None:
    """What each will spend, and nobody, in the frame's order; only asked where bands go by costs."""
    champion = runtime.champions.get("value") if runtime.shop.retention.contact_cost is not None else None
    if champion is None:
        return None
    prediction = value.score_value(
        champion.model, runtime.load_features(champion, keys, feature_cache), currency=runtime.shop.currency
    )
    return np.where(prediction.fallback, np.nan, prediction.expected)


#: Silent for more horizons than this: a band of their own, lest they crowd out who can still be kept.
LAPSED_HORIZONS = 2


@dataclass(frozen=True, slots=True)
class ChurnPrediction:
    """Who is drifting away: a row a customer, in the frame's order."""

    probability: Floats
    horizon_days: int
    band: list[Band]
    #: Each with what it adds to the log odds of the probability.
    reasons: list[list[churn_reasons.WeightedReason]]
    rfm: list[str | None]
    fallback: Flags


def score_churn(
    model: Model,
    frame: pd.DataFrame,
    quintiles: rfm.RfmQuintiles | None = None,
    *,
    costs: RetentionCosts | None = None,
    expected_spend: Floats | None = None,
    load_lapsed: churn_reasons.LapsedLoader | None = None,
) -> ChurnPrediction:
    """P(no purchase within the horizon), its band, and why, for every row of the frame.

    `costs` say from where on a contact pays, with what each is expected to spend as `value` (NaN: not known).
    `dropped` tells what customers of the frame no longer buy, for their reasons.
    """
    probability, is_fallback = fallback_scoring.score_or_average(
        model, frame, np.atleast_1d(np.asarray(model.population_average(), np.float64))
    )
    probability = fallback_scoring.rounded(probability[:, 0])
    return ChurnPrediction(
        probability=probability,
        horizon_days=churn_horizon_days(model),
        band=_assign_bands(
            (costs or RetentionCosts()).assign_bands(probability, expected_spend),
            _recency_days(frame),
            churn_horizon_days(model),
        ),
        reasons=_explain_rows(cast(ExplainableModel, model), frame, np.flatnonzero(~is_fallback), load_lapsed),
        rfm=rfm.rfm_codes(frame, quintiles) if quintiles else [None] * len(frame),
        fallback=is_fallback,
    )


def churn_horizon_days(model: Any) -> int:
    """The days ahead that a churn model speaks of."""
    return int(model.horizon_days)


def _recency_days(frame: pd.DataFrame) -> Floats:
    return np.asarray(frame.get("recency_days", pd.Series(np.nan, frame.index)), np.float64)


def _assign_bands(cost_bands: list[str], recency_days: Floats, horizon_days: int) -> list[Band]:
    is_lapsed = recency_days > LAPSED_HORIZONS * horizon_days
    return cast(list[Band], np.where(is_lapsed, "lapsed", cost_bands).tolist())


def _explain_rows(
    model: ExplainableModel,
    frame: pd.DataFrame,
    scored_rows: NDArray[np.int64],
    load_lapsed: churn_reasons.LapsedLoader | None,
) -> list[list[churn_reasons.WeightedReason]]:
    """Why, of the rows that are sure of their answer; no reason for any other."""
    reasons: list[list[churn_reasons.WeightedReason]] = [[] for _ in range(len(frame))]
    scored_frame = frame.iloc[scored_rows].reset_index(drop=True)
    if len(scored_frame):
        row_reasons = churn_reasons.explain_churn(
            model.contributions(scored_frame),
            scored_frame,
            horizon_days=churn_horizon_days(model),
            lapsed_loader=_for_scored_rows(load_lapsed, scored_rows),
        )
        for row, explanation in zip(scored_rows.tolist(), row_reasons, strict=True):
            reasons[row] = explanation
    return reasons


def _for_scored_rows(
    load_lapsed: churn_reasons.LapsedLoader | None, scored_rows: NDArray[np.int64]
) -> churn_reasons.LapsedLoader | None:
    """The same, asked for places among the sure rows."""
    if load_lapsed is None:
        return None

    def load_rows(positions: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
        lapsed = load_lapsed(scored_rows[list(positions)].tolist())
        return {
            position: lapsed[row]
            for position, row in zip(positions, scored_rows[list(positions)].tolist(), strict=True)
            if row in lapsed
        }

    return load_rows
