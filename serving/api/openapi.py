"""The OpenAPI document: BentoML's description of all routes, with our roles, API keys and problem responses."""

from __future__ import annotations

from typing import Any

from serving.http.problems import DEFAULT_DETAILS, PROBLEM_JSON
from serving.http.routes import ROUTES, Route

PROBLEM_SCHEMA = {
    "type": "object",
    "description": "A problem document (RFC 9457). It never repeats what was sent.",
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
_HEALTH_DESCRIPTIONS = {
    "/livez": "Liveness: the process answers.",
    "/readyz": "Readiness: whether any model has a champion, and the reason for each that has none.",
    "/metrics": "Prometheus metrics, by route template.",
}
_COPIED_FIELDS = ("summary", "description", "parameters", "requestBody")


def build_document(bento_spec: dict[str, Any], version: str) -> dict[str, Any]:
    """BentoML's specification with our titles, API keys and problem responses, for the routes in ROUTES only."""
    paths = {
        path: {
            method: _build_operation(route, bento_spec["paths"].get(path, {}).get(method, {}))
            for route in ROUTES
            if route.path == path and (method := route.method.lower())
        }
        for path in dict.fromkeys(route.path for route in ROUTES)
    }
    bento_schemas = bento_spec["components"]["schemas"]
    schemas = {name: bento_schemas[name] for name in sorted(_reachable_schemas(paths, bento_schemas))}
    return {
        "openapi": bento_spec["openapi"],
        "info": {
            "title": "regulars",
            "version": version,
            "description": "Which customers are coming back, when, for what, and who is slipping away.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": PROBLEM_SCHEMA},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _build_operation(route: Route, bento_operation: dict[str, Any]) -> dict[str, Any]:
    copied = {name: bento_operation[name] for name in _COPIED_FIELDS if bento_operation.get(name)}
    successes = {
        code: response for code, response in bento_operation.get("responses", {}).items() if str(code).startswith("2")
    }
    operation = {
        "operationId": _operation_id(route),
        **({"description": _HEALTH_DESCRIPTIONS[route.path]} if route.path in _HEALTH_DESCRIPTIONS else copied),
        "responses": {str(code): response for code, response in (successes or {200: {"description": "OK"}}).items()},
    }
    operation["responses"] |= {str(status): _problem_response(status) for status in _problem_statuses(route)}
    if route.is_public:
        return {**operation, "security": []}
    return {**operation, "x-roles": sorted(route.roles)}


def _operation_id(route: Route) -> str:
    path_name = route.path.replace("{", "").replace("}", "").replace("/v1", "").strip("/").replace("/", "_")
    return f"{route.method.lower()}_{path_name}".replace("-", "_").replace(".", "_")


def _problem_statuses(route: Route) -> list[int]:
    if route.is_public:
        return [503] if route.path == "/readyz" else []
    body_statuses = [413, 415] if route.method == "POST" else []
    missing_statuses = [404] if route.path.endswith(("{customer_id}", "/scores", "/export", "/erase")) else []
    return sorted([401, 403, 422, 500, 503, *body_statuses, *missing_statuses])


def _problem_response(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": DEFAULT_DETAILS[status], "content": {PROBLEM_JSON: {"schema": schema}}}


def _reachable_schemas(document: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of the schemas that the document refers to, directly or through another schema."""
    reachable: set[str] = set()
    pending = _referenced_schemas(document)
    while pending:
        name = pending.pop()
        if name not in reachable and name in schemas:
            reachable.add(name)
            pending |= _referenced_schemas(schemas[name])
    return reachable


def _referenced_schemas(document: Any) -> set[str]:
    if isinstance(document, dict):
        references = {document["$ref"].rsplit("/", 1)[1]} if isinstance(document.get("$ref"), str) else set()
        return references.union(*(_referenced_schemas(part) for part in document.values()))
    return set().union(*(_referenced_schemas(part) for part in document)) if isinstance(document, list) else set()
