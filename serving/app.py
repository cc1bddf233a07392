"""The FastAPI app mounted under the BentoML service: reads about one customer, lists, record uploads and pages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from customers.shop.errors import ShopUnavailable
from serving.api import at_risk, customers, exports, privacy, records
from serving.console import pages
from serving.http import problems, request_context
from serving.http.problems import Problem

log = logging.getLogger("regulars.app")


def create_app(openapi: Callable[[], dict[str, Any]]) -> FastAPI:
    """Build the app to mount. `openapi` returns the OpenAPI document of the whole server, bulk endpoints included."""
    app = FastAPI(title="regulars", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(customers.router)
    app.include_router(at_risk.router)
    app.include_router(records.router)
    app.include_router(privacy.router)
    app.include_router(exports.router)
    app.include_router(pages.router)
    app.add_api_route("/openapi.json", lambda: JSONResponse(openapi()), include_in_schema=False)
    for exception_type in (Problem, ShopUnavailable):
        app.add_exception_handler(exception_type, _respond_to_error)
    return app


def error_response(error: Exception) -> Response:
    """Turn an exception into a problem response; any error but a Problem is logged, by type and location only."""
    request_id = request_context.current().request_id
    if not isinstance(error, Problem):
        log.error("%s: %s", request_id, problems.describe_traceback(error))
    return problems.from_exception(error).response(request_id)


async def _respond_to_error(_: Request, error: Exception) -> Response:
    return error_response(error)
