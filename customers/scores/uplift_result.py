"""Result of the uplift analysis: whether contact raises purchases, and the value it saves per customer.

`regulars uplift` saves its result here and, where the evidence is conclusive, an effect score per customer under
MODEL. Without evidence there is a text and no number: a list must not be ordered by chance.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

import pandas as pd

from customers.scores import score_store
from customers.scores.score_frames import load_score_details
from customers.shop import durable_files
from customers.shop.settings import Shop

MODEL = "uplift"
EVIDENCE, NOT_ENOUGH_EVIDENCE = "evidence", "not enough evidence"
NOT_ANALYSED = "no uplift analysis yet; run: regulars uplift"
NOT_SCORED = "no nightly run has scored the effect of contact yet; run: regulars score"
#: Floor of P(return): below it, the spend given a return is estimated from too few customers.
MIN_RETURN_PROBABILITY = 0.05


@dataclass(frozen=True, slots=True)
class UpliftResult:
    """Verdict on the effect of contact, from the shop's campaigns, and its explanation.

    `outcome` is what contact raises within `days`: `return`, the probability of a purchase, or `spend`, money; None
    without evidence. `version` is that of the effect model.
    """

    as_of: str
    verdict: str
    why: str
    outcome: str | None
    days: int
    version: str | None

    @property
    def is_conclusive(self) -> bool:
        """Whether there is evidence, so that customers may be ordered by the effect."""
        return self.verdict == EVIDENCE and self.outcome is not None


def save_result(shop: Shop, result: UpliftResult) -> None:
    """Save the result in the home folder; it replaces the previous one atomically."""
    durable_files.write_atomically(shop.home / f"{MODEL}.json", json.dumps(asdict(result), indent=1))


def load_result(shop: Shop) -> UpliftResult | None:
    """The last saved result; None before the first analysis."""
    path = shop.home / f"{MODEL}.json"
    return UpliftResult(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def unavailable_reason(shop: Shop) -> str | None:
    """Why no saved value can be computed, as text; None where it can."""
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
    """Expected saved value of contacting each customer now, (n,), in the shop's currency; NaN where unknown.

    keys: customer_key; expected_value: expected spend within the value horizon; churn_probability: all (n,). The effect
    is over the result's days (28), the value over the value horizon. For outcome `return` the saved value is effect x
    expected_value / P(return), since expected_value already contains P(return); for `spend` it is the effect itself.
    The outcome is read from each score's own detail.
    """
    result = load_result(shop)
    if result is None or not result.is_conclusive:
        return pd.Series(float("nan"), index=keys.index, dtype="float64")
    stored_scores = load_score_details(shop, MODEL, as_of, include_online=include_online).set_index("customer_key")
    effect = keys.map(stored_scores["value"]).astype("float64")
    outcome = keys.map(stored_scores["detail"].map(lambda detail: detail.outcome))
    value_given_return = expected_value.astype("float64") / (1 - churn_probability.astype("float64")).clip(
        lower=MIN_RETURN_PROBABILITY
    )
    return (effect * value_given_return).where(outcome == "return", effect.where(outcome == "spend"))
