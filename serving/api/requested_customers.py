"""The customers of one request, looked up by their ids, and the envelope of every response."""

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
from serving.api.schemas.common import DegradedFacts, ModelFacts
from serving.http import prometheus, request_context
from serving.runtime import UNKNOWN_CUSTOMER, ServerRuntime
from serving.scoring.inputs import OnlineInputs


@dataclass(frozen=True)
class RequestedCustomers:
    """The requested customers: for each id, its row in frames with a row per key of `keys` and a last fallback row.

    The fallback row stands for unknown customers and for those who do not allow profiling. `key_by_id` has all known
    customers; `keys` are those of them who allow profiling, each once.
    """

    customer_ids: Sequence[str]
    key_by_id: Mapping[str, int]
    keys: list[int]
    rows: list[int]
    #: Features and champions, shared by all questions that one request answers about these customers.
    inputs: OnlineInputs

    @property
    def runtime(self) -> ServerRuntime:
        """The server runtime of the request."""
        return self.inputs.runtime

    def common_fields(self, frame: pd.DataFrame, fallback: np.ndarray, position: int) -> dict[str, Any]:
        """The fields that every result begins with, for the customer at this position of the request.

        frame: column as_of, in the rows that `rows` refers to. fallback: (n_rows,) bool, aligned with the frame.
        """
        row = self.rows[position]
        return {
            "customer_id": self.customer_ids[position],
            "known": self.customer_ids[position] in self.key_by_id,
            "fallback": bool(fallback[row]),
            "features_as_of": to_datetime(frame["as_of"].iloc[row]),
        }


def resolve_customers(runtime: ServerRuntime, customer_ids: Sequence[str]) -> RequestedCustomers:
    """Look up customer ids, and which of these customers allow profiling."""
    key_by_id = lookup.find_keys(runtime.shop, list(customer_ids))
    allowed = consents.allowed_customers(runtime.shop, key_by_id.values(), "profiling")
    keys = list(dict.fromkeys(key_by_id[name] for name in customer_ids if key_by_id.get(name) in allowed))
    row_by_key = {key: row for row, key in enumerate(keys)}
    rows = [row_by_key.get(key_by_id.get(name, UNKNOWN_CUSTOMER), len(keys)) for name in customer_ids]
    # Offers are made to unprofiled customers as well, by eligibility alone.
    unprofiled_keys = [key for key in dict.fromkeys(key_by_id.values()) if key not in row_by_key]
    return RequestedCustomers(customer_ids, key_by_id, keys, rows, OnlineInputs(runtime, keys, unprofiled_keys))


def to_datetime(value: Any) -> datetime | None:
    """A timestamp of a frame as a datetime; None for NaT."""
    return None if pd.isna(value) else pd.Timestamp(value).to_pydatetime()


def build_envelope(
    runtime: ServerRuntime, question: str, frame: pd.DataFrame, champions: Sequence[Champion], results: Sequence[Any]
) -> dict[str, Any]:
    """The envelope of a response. Its as_of is the newest in the column as_of of the frame, or now if all are NaT."""
    context = request_context.current()
    as_of = to_datetime(frame["as_of"].max()) or runtime.now()
    prometheus.count_answers(question, len(results), sum(result.fallback for result in results))
    return {
        "request_id": context.request_id,
        "as_of": as_of,
        "models": [describe_champion(champion) for champion in champions],
        "took_ms": context.took_ms,
        "attribution_token": runtime.attribution_token(
            context.request_id, {c.name: str(c.version) for c in champions}, as_of
        ),
        "results": results,
        "degraded": context.degraded and DegradedFacts.model_validate(context.degraded),
    }


def describe_champion(champion: Champion) -> ModelFacts:
    """The model that made a response's predictions."""
    return ModelFacts(name=champion.name, version=str(champion.version), trained_at=champion.facts.get("trained_at"))
