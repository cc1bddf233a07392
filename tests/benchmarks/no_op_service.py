"""The service with one more route, which answers nothing: what a request costs before any answer is looked up.

Only the benchmark serves it. The route passes through the same gateway, BentoML and FastAPI as every other read.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import uvicorn

from serving.http import routes
from serving.http.routes import Route
from serving.service import Regulars

NO_OP_PATH = "/v1/customers/{customer_id}/nothing"


async def answer_nothing(customer_id: str) -> dict[str, str]:
    """An empty answer about one customer."""
    return {}


def main() -> None:
    """Serve on the port that is the only argument, as a worker of the server does."""
    config = uvicorn.Config(
        cast(Any, Regulars).to_asgi(), port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False
    )
    uvicorn.Server(config).run()


routes.ROUTES = (*routes.ROUTES, Route("GET", NO_OP_PATH, routes.ROLES))
_mounted_app = cast(Any, Regulars).mount_apps[0][0]
_mounted_app.add_api_route(NO_OP_PATH, answer_nothing, methods=["GET"])
routes.routes_by_shape.cache_clear()

if __name__ == "__main__":
    main()
