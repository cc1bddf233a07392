"""Asked: the customers of one question, whom of them the shop knows, and what stands around every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers.people import lookup
from customers.privacy import consents
from models.registry.bundle import Champion
from serving.api.schemas.common import ModelFacts
from serving.http import prometheus, request_context
from serving.runtime import UNKNOWN_CUSTOMER, ServerRuntime


@dataclass(frozen=True)
class RequestedCustomers:
    """The customers asked for: each id with its row in frames of `keys`, which end with a row for nobody.

    That row answers for whoever the shop does not know, and for whoever does not allow profiling. `known` are all
    whom the shop knows, `keys` those of them who allow it, each once.
    """

    customer_ids: Sequence[str]
    key_by_id: Mapping[str, int]
    keys: list[int]
    rows: list[int]

    def common_fields(self, frame: pd.DataFrame, fallback: np.ndarray, position: int) -> dict[str, Any]:
        """What every result says first."""
        row = self.rows[position]
        return {
            "customer_id": self.customer_ids[position],
            "known": self.customer_ids[position] in self.key_by_id,
            "fallback": bool(fallback[row]),
            "features_as_of": to_datetime(frame["as_of"].iloc[row]),
        }


def resolve_customers(runtime: ServerRuntime, customer_ids: Sequence[str]) -> RequestedCustomers:
    """Who these ids are, and of whom anything may be foretold."""
    key_by_id = lookup.find_keys(runtime.shop, list(customer_ids))
    allowed = consents.allowed_customers(runtime.shop, key_by_id.values(), "profiling")
    keys = list(dict.fromkeys(key_by_id[name] for name in customer_ids if key_by_id.get(name) in allowed))
    row_by_key = {key: row for row, key in enumerate(keys)}
    rows = [row_by_key.get(key_by_id.get(name, UNKNOWN_CUSTOMER), len(keys)) for name in customer_ids]
    return RequestedCustomers(customer_ids, key_by_id, keys, rows)


def to_datetime(value: Any) -> datetime | None:
    """An instant out of a frame; None where there is none."""
    return None if pd.isna(value) else pd.Timestamp(value).to_pydatetime()


def build_envelope(
    runtime: ServerRuntime, question: str, frame: pd.DataFrame, champions: Sequence[Champion], results: Sequence[Any]
) -> dict[str, Any]:
    """What surrounds every answer. It speaks of the newest figures used: with none, of now."""
    context = request_context.current()
    as_of = to_datetime(frame["as_of"].max()) or runtime.now()
    prometheus.count_answers(question, len(results), sum(result.fallback for result in results))
    return {
        "request_id": context.request_id,
        "as_of": as_of,
        "models": [_model_facts(champion) for champion in champions],
        "took_ms": context.took_ms,
        "attribution_token": runtime.attribution_token(
            context.request_id, {c.name: str(c.version) for c in champions}, as_of
        ),
        "results": results,
    }


def _model_facts(champion: Champion) -> ModelFacts:
    return ModelFacts(name=champion.name, version=str(champion.version), trained_at=champion.facts.get("trained_at"))
