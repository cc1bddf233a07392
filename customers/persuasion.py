"""Persuasion: whether contact is known to bring customers back, and what it would save of each customer's value.

`regulars uplift` leaves its finding here and, where it rests on evidence, a score of each customer under MODEL.
Without evidence there are words and no numbers: a list must not be ordered by chance.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime

import pandas as pd

from customers.frames import answers
from customers.shop import Shop

MODEL = "uplift"
EVIDENCE, TOO_LITTLE = "evidence", "not enough evidence"
UNTRIED = "nobody has looked yet whom contact brings back; run: regulars uplift"


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
    return None if found.holds else f"{found.verdict}: {found.why}"


def saved_value(
    shop: Shop, keys: pd.Series, expected: pd.Series, *, as_of: datetime | None = None, live: bool = False
) -> pd.Series:
    """What contacting each customer now is expected to save, in the shop's money; NaN where nobody can tell.

    keys: customer_key; expected: what each will spend over the value horizon. Contact that raises the chance of a
    return saves so much of it; contact that is known to raise spend saves what it raises.
    """
    found = kept(shop)
    if found is None or not found.holds:
        return pd.Series(float("nan"), index=keys.index, dtype="float64")
    told = answers(shop, MODEL, as_of, live=live)
    effect = keys.map(told.set_index("customer_key")["value"]).astype("float64")
    return effect * expected.astype("float64") if found.outcome == "return" else effect
