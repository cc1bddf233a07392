"""The rooms behind the counter as one app: everything that is read rather than asked in bulk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from customers.shop import ShopDown
from serving import problems, visits
from serving.api import at_risk, customers, privacy, records
from serving.console import pages
from serving.problems import Problem

log = logging.getLogger("regulars.rooms")


def rooms(openapi: Callable[[], dict[str, Any]]) -> FastAPI:
    """The app to mount; `openapi` describes everything the server answers, bulk questions too."""
    app = FastAPI(title="regulars", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(customers.router)
    app.include_router(at_risk.router)
    app.include_router(records.router)
    app.include_router(privacy.router)
    app.include_router(pages.router)
    app.add_api_route("/openapi.json", lambda: JSONResponse(openapi()), include_in_schema=False)
    for refusal in (Problem, ShopDown):
        app.add_exception_handler(refusal, _refused)
    return app


def refused(error: Exception) -> Response:
    """Any failure as an answer; what was not meant for the caller leaves its place in the log."""
    request_id = visits.current().request_id
    if not isinstance(error, Problem):
        log.error("%s: %s", request_id, problems.whereabouts(error))
    return problems.of(error).response(request_id)


async def _refused(_: Request, error: Exception) -> Response:
    return refused(error)
