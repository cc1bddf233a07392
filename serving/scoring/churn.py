"""Churn scores: P(no purchase within the horizon), its band, its reasons and the RFM code; online and at night.

What differs between online and night is in `inputs.py`.
"""

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
from models.survival import outcomes
from serving.explanations import churn_reasons, lapsed_categories
from serving.scoring import fallback, rfm, value
from serving.scoring.fallback import Flags, Floats, Prediction
from serving.scoring.inputs import ScoringInputs

#: Customers without a purchase for more horizons than this are in a band of their own: they would crowd out those who
#: can still be retained.
LAPSED_HORIZONS = outcomes.ACTIVE_HORIZONS


@dataclass(frozen=True)
class ChurnPrediction(Prediction):
    """P(no purchase within horizon_days), its band and its reasons; probability: (n,)."""

    probability: Floats
    horizon_days: int
    band: list[Band]
    #: Each with what it adds to the log odds of no purchase.
    reasons: list[list[churn_reasons.WeightedReason]]
    rfm: list[str | None]

    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""
        return score_details.encode_churn(
            self.frame["customer_key"].tolist(),
            self.probability,
            horizon_days=self.horizon_days,
            bands=self.band,
            reasons=self.reasons,
            rfm_codes=self.rfm,
            fallback=self.fallback,
        )


def predict_churn(inputs: ScoringInputs) -> ChurnPrediction:
    """Churn of the customers of the inputs; computed once, since timing must agree with it."""
    return inputs.predict_once("churn", lambda: _predict_churn(inputs))


def _predict_churn(inputs: ScoringInputs) -> ChurnPrediction:
    frame = inputs.load_features("churn")
    return score_churn(
        inputs.get_model("churn"),
        frame,
        inputs.load_quintiles(frame),
        costs=inputs.shop.retention,
        expected_spend=_expected_spend(inputs),
        load_lapsed=_lapsed_loader(inputs),
        uses_fallback=inputs.uses_fallback("churn"),
    )


def _expected_spend(inputs: ScoringInputs) -> Floats | None:
    """Expected spend per row, NaN where unknown; None unless bands depend on contact costs."""
    if inputs.shop.retention.contact_cost is None:
        return None
    if inputs.find_model("value") is None:
        return inputs.load_stored_spend()
    prediction = value.predict_value(inputs)
    return np.where(prediction.is_scored, prediction.expected, np.nan)


def _lapsed_loader(inputs: ScoringInputs) -> churn_reasons.LapsedLoader:
    def load_lapsed(rows: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
        history = inputs.load_category_history(rows)
        lapsed = lapsed_categories.find_lapsed(history, inputs.inventory.sensitive_categories)
        return {rows[position]: names for position, names in lapsed.items()}

    return load_lapsed


def score_churn(
    model: Model,
    frame: pd.DataFrame,
    quintiles: rfm.RfmQuintiles | None = None,
    *,
    costs: RetentionCosts | None = None,
    expected_spend: Floats | None = None,
    load_lapsed: churn_reasons.LapsedLoader | None = None,
    uses_fallback: bool = False,
) -> ChurnPrediction:
    """P(no purchase within the horizon), its band and its reasons, a row per row of the frame.

    frame: columns customer_key, as_of and the model's features. expected_spend: (n,), NaN where unknown; with `costs`
    it gives the probability from which a contact pays. load_lapsed: categories no longer bought, by row of the frame.
    """
    probability, is_scored = fallback.score_or_average(
        model, frame, np.atleast_1d(np.asarray(model.population_average(), np.float64))
    )
    probability = fallback.round_probabilities(probability[:, 0])
    horizon_days = churn_horizon_days(model)
    cost_bands = (costs or RetentionCosts()).assign_bands(probability, expected_spend)
    return ChurnPrediction(
        frame=frame,
        is_scored=is_scored,
        fallback=~is_scored | uses_fallback,
        probability=probability,
        horizon_days=horizon_days,
        band=_assign_bands(cost_bands, _recency_days(frame), horizon_days),
        reasons=_explain_rows(cast(ExplainableModel, model), frame, is_scored, load_lapsed),
        rfm=rfm.rfm_codes(frame, quintiles) if quintiles else [None] * len(frame),
    )


def churn_horizon_days(model: Any) -> int:
    """The horizon of a churn model, in days."""
    return int(model.horizon_days)


def _recency_days(frame: pd.DataFrame) -> Floats:
    return np.asarray(frame.get("recency_days", pd.Series(np.nan, frame.index)), np.float64)


def _assign_bands(cost_bands: list[str], recency_days: Floats, horizon_days: int) -> list[Band]:
    is_lapsed = recency_days > LAPSED_HORIZONS * horizon_days
    return cast(list[Band], np.where(is_lapsed, "lapsed", cost_bands).tolist())


def _explain_rows(
    model: ExplainableModel, frame: pd.DataFrame, is_scored: Flags, load_lapsed: churn_reasons.LapsedLoader | None
) -> list[list[churn_reasons.WeightedReason]]:
    """Reasons of the rows that the model scored; none for the others."""
    reasons: list[list[churn_reasons.WeightedReason]] = [[] for _ in range(len(frame))]
    scored_rows = np.flatnonzero(is_scored)
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
    """The same loader, for positions among the scored rows."""
    if load_lapsed is None:
        return None

    def load_rows(positions: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
        rows = scored_rows[list(positions)].tolist()
        lapsed = load_lapsed(rows)
        return {position: lapsed[row] for position, row in zip(positions, rows, strict=True) if row in lapsed}

    return load_rows
