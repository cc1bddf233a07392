"""The rooms behind the counter as one app: everything that is read rather than asked in bulk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from customers.shop.errors import ShopUnavailable
from serving.api import at_risk, customers, privacy, records
from serving.console import pages
from serving.http import problems, request_context
from serving.http.problems import Problem

log = logging.getLogger("regulars.rooms")


def create_app(openapi: Callable[[], dict[str, Any]]) -> FastAPI:
    """The app to mount; `openapi` describes everything the server answers, bulk questions too."""
    app = FastAPI(title="regulars", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(customers.router)
    app.include_router(at_risk.router)
    app.include_router(records.router)
    app.include_router(privacy.router)
    app.include_router(pages.router)
    app.add_api_route("/openapi.json", lambda: JSONResponse(openapi()), include_in_schema=False)
    for exception_type in (Problem, ShopUnavailable):
        app.add_exception_handler(exception_type, _respond_to_error)
    return app


def error_response(error: Exception) -> Response:
    """Any failure as an answer; what was not meant for the caller leaves its place in the log."""
    request_id = request_context.current().request_id
    if not isinstance(error, Problem):
        log.error("%s: %s", request_id, problems.describe_traceback(error))
    return problems.from_exception(error).response(request_id)


async def _respond_to_error(_: Request, error: Exception) -> Response:
    return error_response(error)
