"""What a person may ask of the shop about themselves: to be shown everything that it holds, and to be forgotten."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from customers import privacy
from serving import desk, forget, once, shown
from serving.api.customers import CustomerId, unknown
from serving.api.records import IdempotencyKey
from serving.desk import Desk
from serving.listings import Erased

router = APIRouter(prefix="/v1/customers/{customer_id}", tags=["privacy"])


@router.post("/export")
def export(customer_id: CustomerId) -> dict[str, Any]:
    """Everything that the shop holds of this customer, to be handed to them."""
    here = desk.here()
    found = shown.everything(here.shop, here.features, customer_id, turn=here.turn)
    if found is None:
        raise unknown()
    return found


@router.post("/erase", response_model=Erased)
async def erase(request: Request, customer_id: CustomerId, idempotency_key: IdempotencyKey = None) -> Response:
    """Forget this customer for good: their sales stay in the books as nobody's. Nothing can undo this."""
    body = await request.body()
    return await run_in_threadpool(_once, request, body, customer_id)


def _once(request: Request, body: bytes, customer_id: str) -> Response:
    here = desk.here()
    return once.only(here.shop, request, body, lambda: _erased(here, customer_id))


def _erased(here: Desk, customer_id: str) -> Response:
    erased = privacy.erase(here.shop, customer_id)
    if erased is None:
        raise unknown()
    forgotten = forget.follow(here)
    return JSONResponse(Erased(erased=True, lines=erased.lines, forgotten=forgotten).model_dump(mode="json"))
