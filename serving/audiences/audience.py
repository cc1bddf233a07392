"""Answer of the audience endpoint: the customers most likely to buy given products or to redeem an offer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from customers.people import lookup
from serving.api.requested_customers import build_envelope
from serving.api.schemas.products import AudienceAnswer, AudienceQuestion, AudienceResult, PassedOver
from serving.audiences import buyers, redeemers
from serving.audiences.population import Floats, RankedCustomers
from serving.runtime import ServerRuntime
from serving.scoring import fallback

NOBODY_ELIGIBLE = "nobody may be asked about; see left_out"
NO_MORE_ELIGIBLE = "no others may be asked about; see left_out"
NO_MORE_WITH_FEATURES = "the shop has figures of no others"
NO_FEATURES_YET = "no night has computed figures of anybody yet; run: regulars run"


def answer_audience(runtime: ServerRuntime, question: AudienceQuestion) -> AudienceAnswer:
    """The n most probable customers, and their expected lift over a random audience of this size."""
    if question.offer_id is not None:
        ranked = redeemers.rank_redeemers(runtime, question.offer_id, question.n, question.channel)
    else:
        ranked = buyers.rank_buyers(runtime, question)
    keys, probabilities = ranked.keys[: question.n], ranked.probabilities[: question.n]
    names = lookup.find_ids(runtime.shop, keys.tolist())
    results = [
        AudienceResult(
            customer_id=names[key], known=True, fallback=ranked.is_fallback, features_as_of=ranked.as_of,
            rank=rank, score=round(probability, fallback.PROBABILITY_DIGITS), reason=ranked.reason_by_key[key],
        )
        for rank, (key, probability) in enumerate(zip(keys.tolist(), probabilities.tolist(), strict=True), start=1)
    ]  # fmt: skip
    as_of_frame = pd.DataFrame({"as_of": [ranked.as_of]})
    return AudienceAnswer(
        **build_envelope(runtime, "audience", as_of_frame, [ranked.champion], results),
        eligible=len(ranked.keys),
        expected_buyers=round(float(probabilities.sum()), 3),
        expected_lift=expected_lift(ranked.probabilities, question.n),
        window_days=ranked.window_days,
        left_out=[PassedOver(reason=reason, customers=count) for reason, count in ranked.excluded_counts.items()],
        notes=ranked.notes,
        reason=_shortfall_reason(ranked, len(results), question.n),
    )


def _shortfall_reason(ranked: RankedCustomers, returned_count: int, n: int) -> str | None:
    """Why the audience has fewer than n customers; None where it has n."""
    if returned_count == n:
        return None
    if returned_count == 0:
        return ranked.empty_reason or (NOBODY_ELIGIBLE if ranked.excluded_counts else NO_FEATURES_YET)
    return f"{returned_count} of {n}; {NO_MORE_ELIGIBLE if ranked.excluded_counts else NO_MORE_WITH_FEATURES}"


def expected_lift(probabilities: Floats, n: int) -> float | None:
    """Mean probability of the n most probable customers, over the mean of all; None where all are 0.

    probabilities: (n_customers,), of all customers whom the audience was chosen from, in any order.
    """
    mean_probability = float(probabilities.mean()) if len(probabilities) else 0.0
    return round(float(np.sort(probabilities)[::-1][:n].mean()) / mean_probability, 4) if mean_probability > 0 else None
