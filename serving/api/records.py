"""What other systems tell the shop: sales, contacts, people, goods, offers and consents; kept, then answered."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from customers.loading import load as loading_load
from customers.loading.load import IngestResult
from customers.parquet import mirror
from serving import runtime
from serving.api.schemas.records import Kept, TurnedAway
from serving.http import idempotency
from serving.http.problems import Problem
from serving.runtime import ServerRuntime
from serving.scoring import refresh

router = APIRouter(prefix="/v1", tags=["records"])

MAX_RECORDS = 1_000

Source = Annotated[str, Query(min_length=1, max_length=100, description="Where the records come from.")]
IdempotencyKey = Annotated[
    str | None, Header(description="Names this write: sent again with the same key, it is done once.")
]


def _request_body_schema(kind: str) -> dict[str, Any]:
    """What may be sent, for OpenAPI: a record of this kind, or a list of them."""
    columns = loading_load.RECORD_KINDS[kind]
    record = {
        "type": "object",
        "required": list(columns.required),
        "properties": {name: {"description": f"See the columns of {kind}."} for name in columns.columns},
    }
    body_schema = {"oneOf": [record, {"type": "array", "items": record, "minItems": 1, "maxItems": MAX_RECORDS}]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema}}}}


@router.post("/transactions", response_model=Kept, openapi_extra=_request_body_schema("transactions"))
async def transactions(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Sales and returns, a record a line; the customers' next answers know of them."""
    return await _receive(request, "transactions", source)


@router.post("/interactions", response_model=Kept, openapi_extra=_request_body_schema("interactions"))
async def interactions(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """What was sent, opened, clicked, said, complained of or redeemed."""
    return await _receive(request, "interactions", source)


@router.post("/customers", response_model=Kept, openapi_extra=_request_body_schema("customers"))
async def customers(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Who the customers are; a field that is not said stays what it was."""
    return await _receive(request, "customers", source)


@router.post("/products", response_model=Kept, openapi_extra=_request_body_schema("products"))
async def products(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """What the shop sells; a field that is not said stays what it was."""
    return await _receive(request, "products", source)


@router.post("/catalogue/offers", response_model=Kept, openapi_extra=_request_body_schema("offers"))
async def offers(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Which offers can be made, when, to whom and for what; an offer is said whole."""
    return await _receive(request, "offers", source)


@router.post("/consents", response_model=Kept, openapi_extra=_request_body_schema("consents"))
async def consents(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """What customers allow or revoke; it holds from the next answer on."""
    return await _receive(request, "consents", source)


async def _receive(request: Request, kind: str, source: str) -> Response:
    body = await request.body()
    return await run_in_threadpool(_load_once, request, body, kind, source)


def _load_once(request: Request, body: bytes, kind: str, source: str) -> Response:
    server_runtime = runtime.get_runtime()
    return idempotency.run_once(server_runtime.shop, request, body, lambda: _load(server_runtime, kind, body, source))


def _load(runtime: ServerRuntime, kind: str, body: bytes, source: str) -> Response:
    payload = _parse_json(body)
    records = payload if isinstance(payload, list) else [payload]
    if not 1 <= len(records) <= MAX_RECORDS:
        raise Problem(422, errors=[{"pointer": "", "detail": f"send 1 to {MAX_RECORDS:,} records at a time"}])
    load_result = loading_load.ingest_records(runtime.shop, kind, records, source=source)
    if load_result.is_all_rejected:
        pointer = "/{}" if isinstance(payload, list) else ""
        errors = [
            {"pointer": pointer.format(error["index"]), "detail": error["reason"]} for error in load_result.errors
        ]
        raise Problem(422, "None of the records could be kept; see errors.", errors=errors)
    return JSONResponse(_to_answer(load_result, _propagate(runtime, load_result)).model_dump(mode="json"))


def _parse_json(body: bytes) -> Any:
    """JSON as it was written: numbers stay texts, so that no decimal is lost before it is rounded once."""
    try:
        return json.loads(body, parse_float=str, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise Problem(422, errors=[{"pointer": "", "detail": "this is not JSON"}]) from None


def _reject_constant(name: str) -> None:
    raise ValueError("JSON has no such number")


def _propagate(runtime: ServerRuntime, load_result: IngestResult) -> bool:
    """Let every answer know of what was kept; whether they all do."""
    if load_result.kind in refresh.MIRRORED_TABLES:
        with refresh.refresh_lock(runtime.shop):
            mirror.refresh(runtime.shop, only=[load_result.kind])
    return refresh.process_queue(runtime, load_result.customer_keys)


def _to_answer(load_result: IngestResult, refreshed: bool) -> Kept:
    return Kept(
        kind=load_result.kind,
        read=load_result.read,
        inserted=load_result.inserted,
        updated=load_result.updated,
        unchanged=load_result.unchanged,
        rejected=load_result.rejected,
        errors=[TurnedAway(**error) for error in load_result.errors],
        refreshed=refreshed,
    )
