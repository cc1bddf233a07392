"""Reads the plain requests that can be looked up; any other, an invalid one too, is left to the endpoint itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from customers.ledger import interactions
from customers.scores import score_details
from serving.api.schemas.common import MAX_CUSTOMERS, MAX_ID_LENGTH
from serving.http.routes import Route

#: The model of each question, by the last part of its path.
MODELS = {
    "recommendations": "recommender",
    "offers": "offers",
    "churn": "churn",
    "next-purchase": "timing",
    "value": "value",
    "restock": "restock",
}
CUSTOMER_PATH, BULK_PATH = "/v1/customers/{customer_id}/", "/v1/"
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
#: The parameters that are understood here, with their allowed values: a range of numbers, or words.
_PARAMETERS: dict[str, dict[str, Sequence[Any]]] = {
    "recommendations": {"n": range(1, 51), "list": score_details.LIST_NAMES},
    "offers": {"n": range(1, 51), "channel": interactions.CHANNELS},
    "restock": {"within_days": range(1, 91)},
}
#: Parameters that change nothing where they have this value.
_IDLE: dict[str, Mapping[str, Any]] = {
    "recommendations": {
        "at": None, "exclude_product_ids": [], "categories": [], "exclude_categories": [], "exclude_departments": [],
        "in_stock_only": None, "min_margin": None, "boost": None, "pin": None, "max_per_category": None,
        "explore": None, "seed": None,
    },
    "offers": {"at": None, "exclude_offer_ids": []},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LookupQuestion:
    """A question about customers: which one, their ids, and its parameters; what was left out is None."""

    name: str
    customer_ids: list[str]
    n: int | None = None
    list_name: str | None = None
    channel: str | None = None
    within_days: int | None = None

    @property
    def model(self) -> str:
        """The model that answers it."""
        return MODELS[self.name]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that were given, by their names in a request."""
        values = {"n": self.n, "list": self.list_name, "channel": self.channel, "within_days": self.within_days}
        return {name: value for name, value in values.items() if value is not None}


def question_name(route: Route) -> str | None:
    """The question of a route, as the last part of its path; None for a route that asks none of these."""
    prefix = CUSTOMER_PATH if route.method == "GET" else BULK_PATH
    name = route.path.removeprefix(prefix)
    return name if name in MODELS and route.path != name else None


def parse_read(name: str, path: str, query: str) -> LookupQuestion | None:
    """The question of a GET about one customer; None where it needs the endpoint's own validation."""
    customer_id = path.split("/")[3]
    if not _are_ids([customer_id]):
        return None
    parameters: dict[str, Any] = {}
    for parameter, text in parse_qsl(query, keep_blank_values=True) if query else ():
        allowed = _PARAMETERS.get(name, {}).get(parameter)
        is_number = isinstance(allowed, range) and text.isascii() and text.isdigit() and len(text) <= 2
        value = int(text) if is_number else text
        if allowed is None or value not in allowed or parameter in parameters:
            return None
        parameters[parameter] = value
    return _build_question(name, [customer_id], parameters)


def parse_bulk(name: str, body: bytes) -> LookupQuestion | None:
    """The question of a POST about many customers; None where it needs the endpoint's own validation."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(payload, dict):
        return None
    customer_ids = payload.pop("customer_ids", None)
    if not isinstance(customer_ids, list) or not 1 <= len(customer_ids) <= MAX_CUSTOMERS or not _are_ids(customer_ids):
        return None
    parameters = {}
    for parameter, value in payload.items():
        allowed = _PARAMETERS.get(name, {}).get(parameter)
        if allowed is not None and type(value) in (int, str) and value in allowed:
            parameters[parameter] = value
        elif parameter == "channel" and value is None:
            continue
        elif parameter not in _IDLE.get(name, {}) or value != _IDLE[name][parameter] or value is False:
            return None
    return _build_question(name, customer_ids, parameters)


def _build_question(name: str, customer_ids: list[str], parameters: dict[str, Any]) -> LookupQuestion:
    list_name = parameters.pop("list", None)
    return LookupQuestion(name, customer_ids, list_name=list_name, **parameters)


def _are_ids(values: Sequence[Any]) -> bool:
    """Whether these are texts that the request schema accepts as ids."""
    return (
        all(type(value) is str and 0 < len(value) <= MAX_ID_LENGTH for value in values)
        and _CONTROL_CHARACTERS.search("".join(values)) is None
    )
