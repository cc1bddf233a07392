"""What can be asked, for machines: BentoML's description of everything served, told in this shop's words."""

from __future__ import annotations

from typing import Any

from serving.problems import PROBLEM_JSON, WORDS
from serving.roles import ROUTES, Route

PROBLEM = {
    "type": "object",
    "description": "A refusal (RFC 9457). It never repeats what was sent.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body."},
                    "parameter": {"type": "string", "description": "Name in the path or the query."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
_HEALTH = {
    "/livez": "Alive: the process answers.",
    "/readyz": "Ready: there are champions to ask; where not, the reasons.",
    "/metrics": "Counts for Prometheus, by route template.",
}
_KEPT = ("summary", "description", "parameters", "requestBody")


def describe(bento: dict[str, Any], version: str) -> dict[str, Any]:
    """BentoML's specification with our titles, keys and problems, without the routes the door keeps shut."""
    paths = {
        path: {
            method: _operation(route, bento["paths"].get(path, {}).get(method, {}))
            for route in ROUTES
            if route.path == path and (method := route.method.lower())
        }
        for path in dict.fromkeys(route.path for route in ROUTES)
    }
    shapes = bento["components"]["schemas"]
    schemas = {name: shapes[name] for name in sorted(_reachable(paths, shapes))}
    return {
        "openapi": bento["openapi"],
        "info": {
            "title": "regulars",
            "version": version,
            "description": "Which customers are coming back, when, for what, and who is slipping away.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, told: dict[str, Any]) -> dict[str, Any]:
    kept = {name: told[name] for name in _KEPT if told.get(name)}
    good = {code: reply for code, reply in told.get("responses", {}).items() if str(code).startswith("2")}
    operation = {
        "operationId": _operation_id(route),
        **({"description": _HEALTH[route.path]} if route.path in _HEALTH else kept),
        "responses": {str(code): reply for code, reply in (good or {200: {"description": "OK"}}).items()},
    }
    operation["responses"] |= {str(status): _refusal(status) for status in _refusals(route)}
    if route.open:
        return {**operation, "security": []}
    return {**operation, "x-roles": sorted(route.roles)}


def _operation_id(route: Route) -> str:
    words = route.path.replace("{", "").replace("}", "").replace("/v1", "").strip("/").replace("/", "_")
    return f"{route.method.lower()}_{words}".replace("-", "_").replace(".", "_")


def _refusals(route: Route) -> list[int]:
    if route.open:
        return [503] if route.path == "/readyz" else []
    body = [413, 415] if route.method == "POST" else []
    unknown = [404] if route.path.endswith(("{customer_id}", "/scores", "/export", "/erase")) else []
    return sorted([401, 403, 422, 500, 503, *body, *unknown])


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": WORDS[status], "content": {PROBLEM_JSON: {"schema": schema}}}


def _reachable(told: Any, schemas: dict[str, Any]) -> set[str]:
    """The shapes that are spoken of by anything that can be asked, directly or through another shape."""
    found: set[str] = set()
    waiting = _named(told)
    while waiting:
        name = waiting.pop()
        if name not in found and name in schemas:
            found.add(name)
            waiting |= _named(schemas[name])
    return found


def _named(told: Any) -> set[str]:
    if isinstance(told, dict):
        here = {told["$ref"].rsplit("/", 1)[1]} if isinstance(told.get("$ref"), str) else set()
        return here.union(*(_named(part) for part in told.values()))
    return set().union(*(_named(part) for part in told)) if isinstance(told, list) else set()
