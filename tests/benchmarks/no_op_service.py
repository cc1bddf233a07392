"""A worker of the server with one more route, which answers nothing: what a request costs before any answer is found.

Only the benchmarks serve it. The route passes through the same gateway, BentoML and FastAPI as every other read, and
everything else is that of a worker which `regulars serve` starts: its argument is the listening socket.
"""

from __future__ import annotations

from typing import Any, cast

from serving import worker
from serving.http import routes
from serving.http.routes import Route
from serving.service import Regulars

NO_OP_PATH = "/v1/customers/{customer_id}/nothing"


async def answer_nothing(customer_id: str) -> dict[str, str]:
    """An empty answer about one customer."""
    return {}


routes.ROUTES = (*routes.ROUTES, Route("GET", NO_OP_PATH, routes.ROLES))
_mounted_app = cast(Any, Regulars).mount_apps[0][0]
_mounted_app.add_api_route(NO_OP_PATH, answer_nothing, methods=["GET"])
routes.routes_by_shape.cache_clear()

if __name__ == "__main__":
    worker.main()
