"""Record uploads from other systems: sales, interactions, customers, products, offers and consents."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from customers.loading import load
from customers.loading.load import IngestResult
from customers.parquet import mirror
from serving.api.schemas.records import Kept, TurnedAway
from serving.http import idempotency
from serving.http.problems import Problem
from serving.ingestion import record_writer
from serving.ingestion.record_writer import PostedRecords, RecordWriter
from serving.scoring import refresh

router = APIRouter(prefix="/v1", tags=["records"])

MAX_RECORDS = 1_000
#: So many writes of one worker are under way; further ones wait for their turn.
MAX_WRITES = 200

Source = Annotated[
    str, Query(min_length=1, max_length=100, description="Name of the system that the records come from.")
]
IdempotencyKey = Annotated[
    str | None, Header(description="Key of this write: sent again with the same key, it is carried out once.")
]


def _request_body_schema(kind: str) -> dict[str, Any]:
    """The request body for OpenAPI: a record of this kind, or a list of them."""
    columns = load.RECORD_KINDS[kind]
    record = {
        "type": "object",
        "required": list(columns.required),
        "properties": {name: {"description": f"See the columns of {kind}."} for name in columns.columns},
    }
    body_schema = {"oneOf": [record, {"type": "array", "items": record, "minItems": 1, "maxItems": MAX_RECORDS}]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema}}}}


@router.post("/transactions", response_model=Kept, openapi_extra=_request_body_schema("transactions"))
async def transactions(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Store sales and returns, a record per line. The next predictions for these customers include them."""
    return await _receive(request, "transactions", source)


@router.post("/interactions", response_model=Kept, openapi_extra=_request_body_schema("interactions"))
async def interactions(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Store interactions: messages sent, opened and clicked, enquiries, complaints, and offers redeemed."""
    return await _receive(request, "interactions", source)


@router.post("/customers", response_model=Kept, openapi_extra=_request_body_schema("customers"))
async def customers(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Store customers. A field that is left out keeps its value."""
    return await _receive(request, "customers", source)


@router.post("/products", response_model=Kept, openapi_extra=_request_body_schema("products"))
async def products(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Store products. A field that is left out keeps its value."""
    return await _receive(request, "products", source)


@router.post("/catalogue/offers", response_model=Kept, openapi_extra=_request_body_schema("offers"))
async def offers(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Store offers: when they run, for whom, and for which products. An offer is always sent whole."""
    return await _receive(request, "offers", source)


@router.post("/consents", response_model=Kept, openapi_extra=_request_body_schema("consents"))
async def consents(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Store consents that customers give or revoke. They hold from the next response on."""
    return await _receive(request, "consents", source)


async def _receive(request: Request, kind: str, source: str) -> Response:
    body = await request.body()
    return await run_sync(_load_once, request, body, kind, source, limiter=_writing_limiter())


@cache
def _writing_limiter() -> CapacityLimiter:
    """Threads of their own: a write waits for others, and reads must not wait for the threads that it holds."""
    return CapacityLimiter(MAX_WRITES)


def _load_once(request: Request, body: bytes, kind: str, source: str) -> Response:
    writer = record_writer.get_writer()
    # Not within run_once: a request that was refused for now may be sent again under the same key.
    writer.check_backlog(kind)
    return idempotency.run_once(writer.runtime.shop, request, body, lambda: _load(writer, kind, body, source))


def _load(writer: RecordWriter, kind: str, body: bytes, source: str) -> Response:
    payload = _parse_json(body)
    records = payload if isinstance(payload, list) else [payload]
    if not 1 <= len(records) <= MAX_RECORDS:
        raise Problem(422, errors=[{"pointer": "", "detail": f"send 1 to {MAX_RECORDS:,} records at a time"}])
    posted = PostedRecords(kind, source, records)
    load_result = writer.store(posted)
    if load_result.is_all_rejected:
        pointer = "/{}" if isinstance(payload, list) else ""
        errors = [
            {"pointer": pointer.format(error["index"]), "detail": error["reason"]} for error in load_result.errors
        ]
        raise Problem(422, "None of the records could be stored; see errors.", errors=errors)
    return JSONResponse(_to_answer(load_result, _propagate(writer, posted, load_result)).model_dump(mode="json"))


def _parse_json(body: bytes) -> Any:
    """Parse JSON with decimal numbers as text, so that no digit is lost before the value is rounded once."""
    try:
        return json.loads(body, parse_float=str, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise Problem(422, errors=[{"pointer": "", "detail": "this is not JSON"}]) from None


def _reject_constant(name: str) -> None:
    raise ValueError("JSON has no such number")


def _propagate(writer: RecordWriter, posted: PostedRecords, load_result: IngestResult) -> bool:
    """Refresh what predictions read of the new records; whether all of them now include these."""
    if load_result.kind in refresh.MIRRORED_TABLES:
        with refresh.refresh_lock(writer.runtime.shop):
            mirror.refresh(writer.runtime.shop, only=[load_result.kind])
    return writer.refresh(posted, load_result)


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
