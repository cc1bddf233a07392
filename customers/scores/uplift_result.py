"""Persuasion: whether contact is known to bring customers back, and what it would save of each customer's value.

`regulars uplift` leaves its finding here and, where it rests on evidence, a score of each customer under MODEL.
Without evidence there are words and no numbers: a list must not be ordered by chance.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime

import pandas as pd

from customers.scores import score_store
from customers.scores.score_frames import load_answers
from customers.shop.settings import Shop

MODEL = "uplift"
EVIDENCE, NOT_ENOUGH_EVIDENCE = "evidence", "not enough evidence"
NOT_ANALYSED = "nobody has looked yet whom contact brings back; run: regulars uplift"
NOT_SCORED = "no night has told yet whom contact brings back; run: regulars score"
#: Of whom hardly anybody comes, what they spend if they come is known too badly to go by.
MIN_RETURN_PROBABILITY = 0.05


@dataclass(frozen=True, slots=True)
class UpliftResult:
    """What the shop's campaigns say about contact: a verdict, and why in words.

    `outcome` is what contact is known to raise within `days`: `return`, the chance of a purchase, or `spend`, money;
    None without evidence. `version` names the effect model that speaks for it.
    """

    as_of: str
    verdict: str
    why: str
    outcome: str | None
    days: int
    version: str | None

    @property
    def is_conclusive(self) -> bool:
        """Whether customers may be ordered by it."""
        return self.verdict == EVIDENCE and self.outcome is not None


def save_result(shop: Shop, result: UpliftResult) -> None:
    """Leave the finding in the home, in the place of the one before."""
    partial = shop.home / f"{MODEL}.{os.getpid()}.tmp"
    partial.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    partial.replace(shop.home / f"{MODEL}.json")


def load_result(shop: Shop) -> UpliftResult | None:
    """What was found last; None where nobody has looked yet."""
    path = shop.home / f"{MODEL}.json"
    return UpliftResult(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def unavailable_reason(shop: Shop) -> str | None:
    """Why nobody's saved value can be told, in words; None where it can."""
    result = load_result(shop)
    if result is None:
        return NOT_ANALYSED
    if not result.is_conclusive:
        return f"{result.verdict}: {result.why}"
    return None if score_store.newest_run(shop, MODEL) else NOT_SCORED


def estimate_saved_value(
    shop: Shop,
    keys: pd.Series,
    expected_value: pd.Series,
    churn_probability: pd.Series,
    *,
    as_of: datetime | None = None,
    include_online: bool = False,
) -> pd.Series:
    """What contacting each customer now is expected to save, in the shop's money; NaN where nobody can tell.

    keys: customer_key; expected: what each will spend over the value horizon; quiet: the chance that they stay away.
    The effect is over the finding's days (28), the value over the value horizon. Contact that raises the chance of a
    return saves so much of what they spend if they come: `expected` over the chance that they do, which it holds
    already. Contact that raises spend saves what it raises. Each score says itself which of the two it means.
    """
    result = load_result(shop)
    if result is None or not result.is_conclusive:
        return pd.Series(float("nan"), index=keys.index, dtype="float64")
    stored_scores = load_answers(shop, MODEL, as_of, include_online=include_online).set_index("customer_key")
    effect = keys.map(stored_scores["value"]).astype("float64")
    outcome = keys.map(stored_scores["answer"].map(lambda answer: answer.get("outcome")))
    value_given_return = expected_value.astype("float64") / (1 - churn_probability.astype("float64")).clip(
        lower=MIN_RETURN_PROBABILITY
    )
    return (effect * value_given_return).where(outcome == "return", effect.where(outcome == "spend"))
