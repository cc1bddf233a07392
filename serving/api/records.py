"""What other systems tell the shop: sales, contacts, people, goods, offers and consents; kept, then answered."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from customers import loading, mirror
from customers.loading import Taken
from serving import desk, live, once
from serving.desk import Desk
from serving.listings import Kept, TurnedAway
from serving.problems import Problem

router = APIRouter(prefix="/v1", tags=["records"])

MOST = 1_000

Source = Annotated[str, Query(min_length=1, max_length=100, description="Where the records come from.")]
IdempotencyKey = Annotated[
    str | None, Header(description="Names this write: sent again with the same key, it is done once.")
]


def _described(kind: str) -> dict[str, Any]:
    """What may be sent, for OpenAPI: a record of this kind, or a list of them."""
    columns = loading.KINDS[kind]
    record = {
        "type": "object",
        "required": list(columns.required),
        "properties": {name: {"description": f"See the columns of {kind}."} for name in columns.columns},
    }
    either = {"oneOf": [record, {"type": "array", "items": record, "minItems": 1, "maxItems": MOST}]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": either}}}}


@router.post("/transactions", response_model=Kept, openapi_extra=_described("transactions"))
async def transactions(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Sales and returns, a record a line; the customers' next answers know of them."""
    return await _take(request, "transactions", source)


@router.post("/interactions", response_model=Kept, openapi_extra=_described("interactions"))
async def interactions(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """What was sent, opened, clicked, said, complained of or redeemed."""
    return await _take(request, "interactions", source)


@router.post("/customers", response_model=Kept, openapi_extra=_described("customers"))
async def customers(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Who the customers are; a field that is not said stays what it was."""
    return await _take(request, "customers", source)


@router.post("/products", response_model=Kept, openapi_extra=_described("products"))
async def products(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """What the shop sells; a field that is not said stays what it was."""
    return await _take(request, "products", source)


@router.post("/catalogue/offers", response_model=Kept, openapi_extra=_described("offers"))
async def offers(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """Which offers can be made, when, to whom and for what; an offer is said whole."""
    return await _take(request, "offers", source)


@router.post("/consents", response_model=Kept, openapi_extra=_described("consents"))
async def consents(request: Request, source: Source = "files", idempotency_key: IdempotencyKey = None) -> Response:
    """What customers allow or revoke; it holds from the next answer on."""
    return await _take(request, "consents", source)


async def _take(request: Request, kind: str, source: str) -> Response:
    body = await request.body()
    return await run_in_threadpool(_once, request, body, kind, source)


def _once(request: Request, body: bytes, kind: str, source: str) -> Response:
    here = desk.here()
    return once.only(here.shop, request, body, lambda: _kept(here, kind, body, source))


def _kept(here: Desk, kind: str, body: bytes, source: str) -> Response:
    said = _read(body)
    records = said if isinstance(said, list) else [said]
    if not 1 <= len(records) <= MOST:
        raise Problem(422, errors=[{"pointer": "", "detail": f"send 1 to {MOST:,} records at a time"}])
    taken = loading.take(here.shop, kind, records, source=source)
    if taken.nothing_kept:
        place = "/{}" if isinstance(said, list) else ""
        errors = [{"pointer": place.format(error["index"]), "detail": error["reason"]} for error in taken.errors]
        raise Problem(422, "None of the records could be kept; see errors.", errors=errors)
    return JSONResponse(_told(taken, _spread(here, taken)).model_dump(mode="json"))


def _read(body: bytes) -> Any:
    """JSON as it was written: numbers stay texts, so that no decimal is lost before it is rounded once."""
    try:
        return json.loads(body, parse_float=str, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Problem(422, errors=[{"pointer": "", "detail": "this is not JSON"}]) from None


def _no_number(name: str) -> None:
    raise ValueError("JSON has no such number")


def _spread(here: Desk, taken: Taken) -> bool:
    """Let every answer know of what was kept; whether they all do."""
    if taken.kind in live.COPIED:
        with live.alone(here.shop):
            mirror.refresh(here.shop, only=[taken.kind])
    return live.catch_up(here, taken.customer_keys)


def _told(taken: Taken, refreshed: bool) -> Kept:
    return Kept(
        kind=taken.kind,
        read=taken.read,
        inserted=taken.inserted,
        updated=taken.updated,
        unchanged=taken.unchanged,
        rejected=taken.rejected,
        errors=[TurnedAway(**error) for error in taken.errors],
        refreshed=refreshed,
    )
