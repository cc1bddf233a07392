"""Privacy endpoints: export everything that the shop stores about a customer, and erase a customer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from customers.privacy import erasure
from serving import runtime
from serving.api.customers import CustomerId, unknown_customer_problem
from serving.api.records import IdempotencyKey
from serving.api.schemas.records import Erased
from serving.http import idempotency
from serving.privacy import data_export
from serving.privacy import erasure as privacy_erasure
from serving.runtime import ServerRuntime

router = APIRouter(prefix="/v1/customers/{customer_id}", tags=["privacy"])


@router.post("/export")
def export(customer_id: CustomerId) -> dict[str, Any]:
    """Everything that the shop stores about this customer, to be handed to them.

    Raises a problem (404) for an unknown customer id.
    """
    server_runtime = runtime.get_runtime()
    document = data_export.export_customer(
        server_runtime.shop, server_runtime.features, customer_id, store_lock=server_runtime.store_lock
    )
    if document is None:
        raise unknown_customer_problem()
    return document


@router.post("/erase", response_model=Erased)
async def erase(request: Request, customer_id: CustomerId, idempotency_key: IdempotencyKey = None) -> Response:
    """Erase this customer for good. Their sales remain, without a customer. This cannot be undone."""
    body = await request.body()
    return await run_in_threadpool(_erase_once, request, body, customer_id)


def _erase_once(request: Request, body: bytes, customer_id: str) -> Response:
    server_runtime = runtime.get_runtime()
    return idempotency.run_once(server_runtime.shop, request, body, lambda: _erase(server_runtime, customer_id))


def _erase(runtime: ServerRuntime, customer_id: str) -> Response:
    erased_customer = erasure.erase_customer(runtime.shop, customer_id)
    if erased_customer is None:
        raise unknown_customer_problem()
    is_complete = privacy_erasure.complete_erasures(runtime)
    return JSONResponse(Erased(erased=True, lines=erased_customer.lines, forgotten=is_complete).model_dump(mode="json"))
