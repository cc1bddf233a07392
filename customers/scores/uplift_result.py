"""Persuasion: whether contact is known to bring customers back, and what it would save of each customer's value.

`regulars uplift` leaves its finding here and, where it rests on evidence, a score of each customer under MODEL.
Without evidence there are words and no numbers: a list must not be ordered by chance.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime

import pandas as pd

from customers import scores
from customers.frames import answers
from customers.shop import Shop

MODEL = "uplift"
EVIDENCE, TOO_LITTLE = "evidence", "not enough evidence"
UNTRIED = "nobody has looked yet whom contact brings back; run: regulars uplift"
UNTOLD = "no night has told yet whom contact brings back; run: regulars score"
#: Of whom hardly anybody comes, what they spend if they come is known too badly to go by.
LEAST_CHANCE = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
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
    def holds(self) -> bool:
        """Whether customers may be ordered by it."""
        return self.verdict == EVIDENCE and self.outcome is not None


def keep(shop: Shop, finding: Finding) -> None:
    """Leave the finding in the home, in the place of the one before."""
    partial = shop.home / f"{MODEL}.{os.getpid()}.tmp"
    partial.write_text(json.dumps(asdict(finding), indent=1), encoding="utf-8")
    partial.replace(shop.home / f"{MODEL}.json")


def kept(shop: Shop) -> Finding | None:
    """What was found last; None where nobody has looked yet."""
    path = shop.home / f"{MODEL}.json"
    return Finding(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def doubt(shop: Shop) -> str | None:
    """Why nobody's saved value can be told, in words; None where it can."""
    found = kept(shop)
    if found is None:
        return UNTRIED
    if not found.holds:
        return f"{found.verdict}: {found.why}"
    return None if scores.newest(shop, MODEL) else UNTOLD


def saved_value(
    shop: Shop,
    keys: pd.Series,
    expected: pd.Series,
    quiet: pd.Series,
    *,
    as_of: datetime | None = None,
    live: bool = False,
) -> pd.Series:
    """What contacting each customer now is expected to save, in the shop's money; NaN where nobody can tell.

    keys: customer_key; expected: what each will spend over the value horizon; quiet: the chance that they stay away.
    The effect is over the finding's days (28), the value over the value horizon. Contact that raises the chance of a
    return saves so much of what they spend if they come: `expected` over the chance that they do, which it holds
    already. Contact that raises spend saves what it raises. Each score says itself which of the two it means.
    """
    found = kept(shop)
    if found is None or not found.holds:
        return pd.Series(float("nan"), index=keys.index, dtype="float64")
    told = answers(shop, MODEL, as_of, live=live).set_index("customer_key")
    effect = keys.map(told["value"]).astype("float64")
    outcome = keys.map(told["answer"].map(lambda answer: answer.get("outcome")))
    if_they_come = expected.astype("float64") / (1 - quiet.astype("float64")).clip(lower=LEAST_CHANCE)
    return (effect * if_they_come).where(outcome == "return", effect.where(outcome == "spend"))
