"""Asked: the customers of one question, whom of them the shop knows, and what stands around every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import consent, profiles
from models.bundle import Champion
from serving import metrics, visits
from serving.desk import NOBODY, Desk
from serving.schemas import ModelFacts


@dataclass(frozen=True)
class Asked:
    """The customers asked for: each id with its row in frames of `keys`, which end with a row for nobody.

    That row answers for whoever the shop does not know, and for whoever does not allow profiling. `known` are all
    whom the shop knows, `keys` those of them who allow it, each once.
    """

    customer_ids: Sequence[str]
    known: Mapping[str, int]
    keys: list[int]
    rows: list[int]

    def common(self, frame: pd.DataFrame, fallback: np.ndarray, place: int) -> dict[str, Any]:
        """What every result says first."""
        row = self.rows[place]
        return {
            "customer_id": self.customer_ids[place],
            "known": self.customer_ids[place] in self.known,
            "fallback": bool(fallback[row]),
            "features_as_of": moment(frame["as_of"].iloc[row]),
        }


def look_up(desk: Desk, customer_ids: Sequence[str]) -> Asked:
    """Who these ids are, and of whom anything may be foretold."""
    known = profiles.keys_of(desk.shop, list(customer_ids))
    allowed = consent.allowed(desk.shop, known.values(), "profiling")
    keys = list(dict.fromkeys(known[name] for name in customer_ids if known.get(name) in allowed))
    place = {key: row for row, key in enumerate(keys)}
    rows = [place.get(known.get(name, NOBODY), len(keys)) for name in customer_ids]
    return Asked(customer_ids, known, keys, rows)


def moment(value: Any) -> datetime | None:
    """An instant out of a frame; None where there is none."""
    return None if pd.isna(value) else pd.Timestamp(value).to_pydatetime()


def envelope(
    desk: Desk, question: str, frame: pd.DataFrame, champions: Sequence[Champion], results: Sequence[Any]
) -> dict[str, Any]:
    """What surrounds every answer. It speaks of the newest figures used: with none, of now."""
    visit = visits.current()
    as_of = moment(frame["as_of"].max()) or desk.now()
    metrics.answers(question, len(results), sum(result.fallback for result in results))
    return {
        "request_id": visit.request_id,
        "as_of": as_of,
        "models": [_facts(champion) for champion in champions],
        "took_ms": visit.took_ms,
        "attribution_token": desk.token(visit.request_id, {c.name: str(c.version) for c in champions}, as_of),
        "results": results,
    }


def _facts(champion: Champion) -> ModelFacts:
    return ModelFacts(name=champion.name, version=str(champion.version), trained_at=champion.facts.get("trained_at"))
