"""Answers questions about customers from the arrays of the last night, and computes only what has changed since.

An answer is what the endpoint itself would give. A request that is not plain, a model whose arrays no longer hold, or
a single customer who has changed are left to the endpoint; of many customers those who have changed are computed here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from anyio.to_thread import run_sync
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response

from customers.shop.errors import ShopUnavailable
from models.registry.bundle import Champion
from serving import runtime
from serving.api import predictions
from serving.api.requested_customers import describe_champion, resolve_customers
from serving.api.schemas.common import CustomersQuestion, DegradedFacts
from serving.api.schemas.predictions import OffersQuestion, RestockQuestion
from serving.api.schemas.recommendations import RecommendationQuestion
from serving.http import problems, prometheus, request_context
from serving.http.request_context import Degradation
from serving.http.routes import Route
from serving.lookup import question_parser, table_formats
from serving.lookup.answer_table import AnswerTable, Fields, format_instant
from serving.lookup.catalogue_state import CatalogueState
from serving.lookup.offer_lookup_table import OfferLookupTable
from serving.lookup.outage_answers import OutageAnswers
from serving.lookup.product_table import ProductTable
from serving.lookup.question_parser import LookupQuestion
from serving.lookup.restock_table import RestockTable
from serving.lookup.score_tables import ChurnTable, NextPurchaseTable, ValueTable
from serving.lookup.shop_state import ShopState
from serving.runtime import ServerRuntime

log = logging.getLogger("regulars.lookup")

#: More customers are looked up by a worker thread, so that other requests go on.
MAX_INLINE_CUSTOMERS = 100
#: By model, in the order in which they are made.
TABLES: dict[str, type[AnswerTable]] = {
    "churn": ChurnTable,
    "timing": NextPurchaseTable,
    "value": ValueTable,
    "restock": RestockTable,
    "recommender": ProductTable,
    "offers": OfferLookupTable,
}
#: The models that are named in a response, by question; the second only where it has a champion.
_NAMED_MODELS = {"next-purchase": ("timing", "churn")}
_QUESTION_TYPES: dict[str, type[CustomersQuestion]] = {
    "recommendations": RecommendationQuestion,
    "offers": OffersQuestion,
    "restock": RestockQuestion,
}


async def answer_from_lookup(route: Route, path: str, query: str, body: bytes, headers: Headers) -> Response | None:
    """The response to a question, looked up; None where the endpoint must answer.

    `path` is that of the request, `body` that of a POST, which is also answered as a table where `headers` ask for one.
    It must run in the server's event loop.
    """
    name = question_parser.question_name(route)
    if name is None:
        return None
    if route.method == "GET":
        question = question_parser.parse_read(name, path, query)
        document = None if question is None else await _find_document(question)
        return None if document is None else _to_json(document)
    media_type = table_formats.choose_format(headers.get("accept", ""))
    question = question_parser.parse_bulk(name, body)
    document = None if question is None else await _find_document(question)
    if media_type is not None:
        document = document or await run_sync(_compute_document, name, body)
        if document is not None:
            return await run_sync(table_formats.to_table_response, name, document, media_type)
    if document is None:
        return None
    is_long = len(document["results"]) > MAX_INLINE_CUSTOMERS
    return await run_sync(_to_json, document) if is_long else _to_json(document)


async def _find_document(question: LookupQuestion) -> Fields | None:
    """The fields of the response, looked up; None where not even one customer's answer holds."""
    if not request_context.current().is_database_away:
        try:
            return await _find_present_document(question)
        except ShopUnavailable:
            pass
    return await run_sync(_find_last_document, question)


async def _find_present_document(question: LookupQuestion) -> Fields | None:
    state = get_state(runtime.get_runtime())
    try:
        catalogue, results = await _look_up(state, question)
    except ShopUnavailable:
        raise
    except Exception as error:  # the endpoint can still answer, or says what is wrong
        log.error("%s could not be looked up: %s", question.name, problems.describe_traceback(error))
        return None
    missing = [position for position, result in enumerate(results) if result is None]
    if len(missing) == len(results):
        return None
    if missing and not await run_sync(_compute_missing, state, catalogue, question, results, missing):
        return None
    prometheus.count_answers(question.name, len(results) - len(missing), _count_fallbacks(results, missing))
    return _build_document(state, catalogue, question, results, state.now)


def _find_last_document(question: LookupQuestion) -> Fields | None:
    """The fields of the response while the database does not answer; None where this worker has not read enough."""
    outage = get_outage_answers(runtime.get_runtime())
    last = outage.find_results(question)
    if last is None:
        return None
    request_context.current().degraded = last.degradation
    prometheus.count_answers(question.name, len(last.results), _count_fallbacks(last.results, ()))
    return _build_document(outage.state, last.catalogue, question, last.results, last.now)


def _compute_document(name: str, body: bytes) -> Fields | None:
    """The fields of the response, computed as the endpoint does; None for a request that it refuses."""
    try:
        parsed = _QUESTION_TYPES.get(name, CustomersQuestion).model_validate_json(body)
    except ValidationError:
        return None
    return dict(_compute(runtime.get_runtime(), name, parsed).model_dump(mode="json"))


def _to_json(document: Fields) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


@lru_cache(maxsize=8)
def _open_state(home: Path) -> ShopState:
    return ShopState(runtime.get_runtime(), TABLES)


def get_state(server_runtime: ServerRuntime) -> ShopState:
    """The state of the shop in this process."""
    return _open_state(server_runtime.shop.home)


@lru_cache(maxsize=8)
def _open_outage_answers(home: Path) -> OutageAnswers:
    return OutageAnswers(_open_state(home), _read_average)


def get_outage_answers(server_runtime: ServerRuntime) -> OutageAnswers:
    """What this process can answer without the database of the shop."""
    return _open_outage_answers(server_runtime.shop.home)


def answers_in_outage() -> bool:
    """Whether this process has read what it needs to answer without the database."""
    return get_outage_answers(runtime.get_runtime()).read_at is not None


def _read_average(name: str, unknown_id: str, parameters: dict[str, Any]) -> Fields:
    """The fields of the result of an unknown customer."""
    parsed = _QUESTION_TYPES.get(name, CustomersQuestion)(customer_ids=[unknown_id], **parameters)
    with prometheus.without_counting():
        answer = _compute(runtime.get_runtime(), name, parsed)
    return dict(answer.results[0].model_dump(mode="json"))


async def _look_up(state: ShopState, question: LookupQuestion) -> tuple[CatalogueState, list[Fields | None]]:
    """The result of each customer; None for those who are new, have changed or are not in the arrays."""
    state.notice_commits(request_context.current().database_version)
    current = state.get_catalogue()
    catalogue = await run_sync(state.refresh) if current is None else current
    if len(question.customer_ids) <= MAX_INLINE_CUSTOMERS:
        return catalogue, _find_results(state, catalogue, question)
    return catalogue, await run_sync(_find_results, state, catalogue, question)


def _find_results(state: ShopState, catalogue: CatalogueState, question: LookupQuestion) -> list[Fields | None]:
    table, names = catalogue.tables.get(question.model), question.customer_ids
    results: list[Fields | None] = [None] * len(names)
    if table is None:
        return results
    statuses = state.find_statuses(names, table.arrays.facts.watermark)
    keys = [-1 if each is None or each.is_changed else each.customer_key for each in statuses]
    counts, looked_up = table.columns["consent_count"], []
    for position, row in enumerate(table.arrays.find_rows(keys)):
        status = statuses[position]
        if row >= 0 and status is not None and counts[row] == status.consent_count:
            looked_up.append((position, row))
    if looked_up and "interaction_counts" in table.columns:
        looked_up = _without_new_interactions(state, table, looked_up, keys)
    if looked_up:
        positions, rows = zip(*looked_up, strict=True)
        built = table.build_results([names[position] for position in positions], rows, question, state.now)
        for position, result in zip(positions, built, strict=True):
            results[position] = result
    return results


def _without_new_interactions(
    state: ShopState, table: AnswerTable, looked_up: list[tuple[int, int]], keys: Sequence[int]
) -> list[tuple[int, int]]:
    """The positions and rows of customers who have the interactions that they had at night: loads of files add some."""
    counts = state.read_interaction_counts([keys[position] for position, _ in looked_up])
    stored = table.columns["interaction_counts"][[row for _, row in looked_up]].tolist()
    return [each for each, now, then in zip(looked_up, counts, stored, strict=True) if now == tuple(then)]


def _compute_missing(
    state: ShopState,
    catalogue: CatalogueState,
    question: LookupQuestion,
    results: list[Fields | None],
    missing: Sequence[int],
) -> bool:
    """Compute and store what cannot be looked up, as the endpoint does, and put it at its positions.

    False where another champion has been promoted meanwhile: one response is by one version.
    """
    names = [question.customer_ids[position] for position in missing]
    parsed = _QUESTION_TYPES.get(question.name, CustomersQuestion)(customer_ids=names, **question.parameters)
    answer = _compute(state.runtime, question.name, parsed, customer_count=len(question.customer_ids))
    champions = [catalogue.champions.get(each.name) for each in answer.models]
    if any(
        champion is None or str(champion.version) != each.version
        for champion, each in zip(champions, answer.models, strict=True)
    ):
        return False
    for position, result in zip(missing, answer.results, strict=True):
        results[position] = result.model_dump(mode="json")
    return True


def _compute(server_runtime: ServerRuntime, name: str, parsed: Any, *, customer_count: int | None = None) -> Any:
    """The answer of an endpoint; customer_count: of the whole request, where these customers are a part of it."""
    requested = resolve_customers(server_runtime, parsed.customer_ids)
    match name:
        case "recommendations":
            return predictions.answer_recommendations(requested, parsed)
        case "offers":
            return predictions.answer_offers(requested, parsed, customer_count=customer_count)
        case "restock":
            return predictions.answer_restock(requested, parsed)
        case "churn":
            return predictions.answer_churn(requested)
        case "next-purchase":
            return predictions.answer_next_purchase(requested)
        case _:
            return predictions.answer_value(requested)


def _count_fallbacks(results: Sequence[Fields | None], missing: Sequence[int]) -> int:
    computed = set(missing)
    return sum(
        1
        for position, result in enumerate(results)
        if position not in computed and result is not None and result["fallback"]
    )


def _build_document(
    state: ShopState,
    catalogue: CatalogueState,
    question: LookupQuestion,
    results: Sequence[Fields | None],
    now: datetime,
) -> Fields:
    """The envelope around the results; its as_of is the newest of theirs, or now where none has one."""
    context = request_context.current()
    instants = {result["features_as_of"] for result in results if result and result["features_as_of"]}
    as_of_text = max(instants, key=datetime.fromisoformat) if instants else format_instant(now)
    names = _NAMED_MODELS.get(question.name, (question.model,))
    champions = [catalogue.champions[name] for name in names if name in catalogue.champions]
    token = state.runtime.attribution_token(
        context.request_id, {each.name: str(each.version) for each in champions}, datetime.fromisoformat(as_of_text)
    )
    return {
        "request_id": context.request_id,
        "as_of": as_of_text,
        "models": [_describe(each) for each in champions],
        "took_ms": context.took_ms,
        "attribution_token": token,
        **_describe_degradation(context.degraded),
        "results": results,
    }


def _describe_degradation(degradation: Degradation | None) -> Fields:
    """The field `degraded`, where some of the results were computed while a store did not answer."""
    if degradation is None:
        return {}
    return {"degraded": DegradedFacts.model_validate(degradation).model_dump(mode="json")}


def _describe(champion: Champion) -> Fields:
    return describe_champion(champion).model_dump(mode="json")
