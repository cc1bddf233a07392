"""Audience: the question turned round, who is likeliest to buy these products, or to redeem this offer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from customers import profiles
from serving import buyers, redeemers, scorer
from serving.asked import envelope
from serving.crowd import Floats, Found
from serving.desk import Desk
from serving.inquiries import AudienceAnswer, AudienceQuestion, AudienceResult, PassedOver

NOBODY_LEFT = "nobody may be asked about; see left_out"
NO_MORE_LEFT = "no others may be asked about; see left_out"
NO_MORE = "the shop has figures of no others"
NO_FIGURES = "no night has computed figures of anybody yet; run: regulars run"


def answer(desk: Desk, question: AudienceQuestion) -> AudienceAnswer:
    """The n likeliest customers, and how much better than chance such an audience is expected to be."""
    if question.offer_id is not None:
        found = redeemers.found(desk, question.offer_id, question.n, question.channel)
    else:
        found = buyers.found(desk, question)
    keys, chances = found.keys[: question.n], found.chances[: question.n]
    names = profiles.ids_of(desk.shop, keys.tolist())
    results = [
        AudienceResult(
            customer_id=names[key], known=True, fallback=found.stands_in, features_as_of=found.as_of,
            rank=rank, score=round(chance, scorer.DIGITS), reason=found.why[key],
        )
        for rank, (key, chance) in enumerate(zip(keys.tolist(), chances.tolist(), strict=True), start=1)
    ]  # fmt: skip
    told = pd.DataFrame({"as_of": [found.as_of]})
    return AudienceAnswer(
        **envelope(desk, "audience", told, [found.champion], results),
        eligible=len(found.keys),
        expected_buyers=round(float(chances.sum()), 3),
        expected_lift=expected_lift(found.chances, question.n),
        window_days=found.window_days,
        left_out=[PassedOver(reason=reason, customers=count) for reason, count in found.left_out.items()],
        notes=found.notes,
        reason=_why_fewer(found, len(results), question.n),
    )


def _why_fewer(found: Found, given: int, n: int) -> str | None:
    """Why fewer than n are in it, or nobody is; None where it is full."""
    if given == n:
        return None
    if given == 0:
        return found.reason or (NOBODY_LEFT if found.left_out else NO_FIGURES)
    return f"{given} of {n}; {NO_MORE_LEFT if found.left_out else NO_MORE}"


def expected_lift(chances: Floats, n: int) -> float | None:
    """The mean chance of the n likeliest over that of everybody; None where nobody has any."""
    usual = float(chances.mean()) if len(chances) else 0.0
    return round(float(np.sort(chances)[::-1][:n].mean()) / usual, 4) if usual > 0 else None
