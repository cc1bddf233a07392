"""MkDocs hook: writes the endpoint reference into the HTTP API page, from the OpenAPI description of the service.

`mkdocs build` calls `on_page_markdown` for every page. The description is made in process: no home, no database and no
running server are needed.
"""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any

MARKER = "<!-- endpoints -->"
#: Section title, and the pattern of "METHOD path" that belongs to it: the first that matches.
SECTIONS = (
    ("Predictions for many customers", r"POST /v1/(recommendations|offers|churn|next-purchase|value|restock)"),
    ("Products and audiences", r"POST /v1/(similar|audience)"),
    ("One customer", r"GET /v1/customers/.*"),
    ("Lists", r"GET /v1/at-risk"),
    ("Access and erasure", r"POST /v1/customers/\{customer_id\}/(export|erase)"),
    ("Records", r"POST /v1/.*"),
    ("Server", r"GET /[^/]*"),
    ("More endpoints", r".*"),
)
NOT_DESCRIBED = {"/openapi.json": "The OpenAPI description of all endpoints."}
ANYBODY = "anybody, no key"
#: A longer list of values is cut in the tables.
MOST_VALUES = 16
#: BentoML appends this to the title of a model.
WRAPPER = "IODescriptor"

Schema = dict[str, Any]
#: Method, path, operation.
Endpoint = tuple[str, str, Schema]
#: Field path, type with limits, default, meaning, whether it is required.
Field = tuple[str, str, str, str, bool]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker of a page by the reference; pages without the marker stay as they are."""
    return markdown.replace(MARKER, render(read_openapi())) if MARKER in markdown else markdown


def read_openapi() -> Schema:
    """The OpenAPI document that the server answers at /openapi.json."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # What libraries say of one another is no fault of the pages, and --strict would count it.
        warnings.simplefilter("ignore")
        # BentoML makes a folder of its own when it is imported; the user's home is left alone.
        os.environ.setdefault("BENTOML_HOME", folder)
        from serving import service
        from serving.api import openapi

        return openapi.build_document(service.Regulars.openapi_spec.asdict(), version("regulars"))


def render(openapi: Schema) -> str:
    """Markdown of the whole reference: an overview table, then a chapter per section, then the status codes."""
    reference = Reference(openapi)
    return "\n".join([*reference.overview(), *reference.chapters(), *reference.statuses()])


class Reference:
    """Markdown lines of one OpenAPI document.

    An answer that several endpoints share is written out once; later endpoints link to it.
    """

    def __init__(self, openapi: Schema) -> None:
        self.schemas: dict[str, Schema] = openapi["components"]["schemas"]
        self.endpoints: list[Endpoint] = [
            (method.upper(), path, operation)
            for path, operations in openapi["paths"].items()
            for method, operation in operations.items()
        ]
        self.answer_places: dict[str, Endpoint] = {}

    def overview(self) -> Iterator[str]:
        """One table row per endpoint: method, path, roles, what it answers."""
        yield from ("### Overview", "", "| method | path | roles | what it does |", "|---|---|---|---|")
        for endpoint in self.endpoints:
            method, path, operation = endpoint
            summary = _description(endpoint).partition("\n\n")[0].replace("\n", " ")
            yield f"| {method} | [`{path}`](#{operation['operationId']}) | {_roles(operation)} | {_cell(summary)} |"
        yield ""

    def chapters(self) -> Iterator[str]:
        """A heading per section with its endpoints below."""
        for title, _ in SECTIONS:
            endpoints = [endpoint for endpoint in self.endpoints if _section(endpoint) == title]
            if endpoints:
                yield from (f"### {title}", "")
            for endpoint in endpoints:
                yield from self.chapter(endpoint)

    def chapter(self, endpoint: Endpoint) -> Iterator[str]:
        """Everything about one endpoint."""
        method, path, operation = endpoint
        yield from (f"#### {method} {path} {{ #{operation['operationId']} }}", "", _description(endpoint), "")
        yield from (f"Roles: {_roles(operation)}.", "")
        yield from self.parameters(operation)
        yield from self.request(operation)
        yield from self.answer(endpoint)
        yield from (f"[Status codes](#status-codes): {', '.join(operation['responses'])}.", "")

    def parameters(self, operation: Schema) -> Iterator[str]:
        """The parameters in the path, the query and the headers."""
        rows = [
            (parameter["name"], self.typed(self.not_null(parameter["schema"])), _default(parameter["schema"]),
             f"In the {parameter['in']}. {_meaning(parameter) or _meaning(parameter['schema'])}".strip(),
             parameter.get("required", False))
            for parameter in operation.get("parameters", [])
        ]  # fmt: skip
        yield from _request_table("Parameters:", rows)

    def request(self, operation: Schema) -> Iterator[str]:
        """The fields of the JSON body."""
        content = operation.get("requestBody", {}).get("content", {})
        schema = next((media["schema"] for media in content.values()), None)
        if schema is None:
            return
        one_or_many = schema.get("oneOf")
        if one_or_many:
            schema, many = one_or_many
            size = _span(many["minItems"], many["maxItems"], " records")
            yield from (f"The body is one record, or a list of {size}.", "")
        yield from self.body(self.resolved(schema))

    def body(self, schema: Schema) -> Iterator[str]:
        """The fields of one object; only their names where the description says no more of them."""
        fields = schema.get("properties", {})
        required = schema.get("required", [])
        if fields and not any("type" in field or "anyOf" in field or "$ref" in field for field in fields.values()):
            yield from (f"Required fields: {_names(name for name in fields if name in required)}.", "")
            yield from (f"Optional fields: {_names(name for name in fields if name not in required)}.", "")
            return
        rows = [
            (name, self.typed(field), _default(field), _meaning(self.resolved(field)), name in required)
            for name, field in fields.items()
        ]
        yield from _request_table("Body:", rows)

    def answer(self, endpoint: Endpoint) -> Iterator[str]:
        """The fields of the JSON answer, nested ones with their path."""
        good = next(reply for code, reply in endpoint[2]["responses"].items() if code.startswith("2"))
        content = good.get("content", {})
        others = [media for media in content if media != "application/json"]
        schema = content.get("application/json", {}).get("schema")
        if schema is None:
            return
        name = str(schema.get("$ref", "").rpartition("/")[2] or schema.get("title", "")).removesuffix(WRAPPER)
        earlier = self.answer_places.setdefault(name, endpoint)
        if earlier is not endpoint:
            link = f"[{earlier[0]} {earlier[1]}](#{earlier[2]['operationId']})"
            yield from (f"Answer: the same fields as the answer of {link}.", "")
        else:
            yield from _answer_table(list(self.fields(self.resolved(schema), "")))
        if others:
            yield from (f"Also available as {_names(others)} (send `Accept`).", "")

    def fields(self, schema: Schema, prefix: str) -> Iterator[Field]:
        """Each field of an answer, and below it the fields of the objects that it holds."""
        for name, field in schema.get("properties", {}).items():
            inner, many = self.held_object(field)
            meaning = _meaning(field)
            yield (f"{prefix}{name}", self.typed(field), "", meaning, True)
            if inner is not None:
                yield from self.fields(inner, f"{prefix}{name}{'[]' if many else ''}.")

    def held_object(self, field: Schema) -> tuple[Schema | None, bool]:
        """The object with named fields that a field holds, and whether it holds a list of them; None for neither."""
        field = self.not_null(field)
        if field.get("type") == "array":
            inner, _ = self.held_object(field.get("items", {}))
            return inner, True
        return (field, False) if field.get("properties") else (None, False)

    def resolved(self, schema: Schema) -> Schema:
        """The schema itself where it is only a reference."""
        reference = schema.get("$ref")
        return self.schemas[reference.rpartition("/")[2]] if reference else schema

    def not_null(self, schema: Schema) -> Schema:
        """The only alternative beside null, resolved."""
        parts = [part for part in schema.get("anyOf", []) if part.get("type") != "null"]
        return self.resolved(parts[0]) if len(parts) == 1 else self.resolved(schema)

    def typed(self, schema: Schema) -> str:
        """Type and limits in words."""
        schema = self.resolved(schema)
        if "anyOf" in schema:
            return " or ".join(self.typed(part) for part in schema["anyOf"])
        if "enum" in schema or "const" in schema:
            return _values(schema.get("enum") or [schema["const"]])
        return _with_limits(self.type_name(schema), schema)

    def type_name(self, schema: Schema) -> str:
        """The type of a schema without alternatives."""
        kind = str(schema.get("type", "any"))
        if kind == "array":
            item = self.typed(schema.get("items", {}))
            return f"list of {item.replace(', ', ' (', 1)})" if ", " in item else f"list of {item}"
        if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            keys = schema.get("propertyNames", {}).get("enum", [])
            held = self.typed(schema["additionalProperties"])
            return f"object: {_values(keys) if keys else 'name'} to {held}"
        return {"date-time": "time (ISO 8601)", "date": "date"}.get(str(schema.get("format")), kind)

    def statuses(self) -> Iterator[str]:
        """One table row per status code that any endpoint answers."""
        words: dict[str, str] = {}
        for _, _, operation in self.endpoints:
            for code, reply in operation["responses"].items():
                if not code.startswith("2"):
                    words.setdefault(code, reply.get("description", ""))
        yield from ("### Status codes", "", "| code | meaning |", "|---|---|", "| 200 | Done. |")
        yield from (f"| {code} | {_cell(words[code])} |" for code in sorted(words))
        yield ""


def _section(endpoint: Endpoint) -> str:
    line = f"{endpoint[0]} {endpoint[1]}"
    return next(title for title, pattern in SECTIONS if re.fullmatch(pattern, line))


def _roles(operation: Schema) -> str:
    return _names(operation["x-roles"]) if "x-roles" in operation else ANYBODY


def _description(endpoint: Endpoint) -> str:
    _, path, operation = endpoint
    return inspect.cleandoc(operation.get("description") or NOT_DESCRIBED.get(path) or operation.get("summary") or "")


def _meaning(schema: Schema) -> str:
    return str(schema.get("description", ""))


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return ""
    value = schema["default"]
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[value]}`" if value is None or isinstance(value, bool) else f"`{value}`"


def _with_limits(name: str, schema: Schema) -> str:
    """A type with its limits, for instance "integer, 1 to 50"."""
    units = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items"),
             ("minProperties", "maxProperties", " entries"))  # fmt: skip
    limits = [_span(schema.get(low), schema.get(high), unit) for low, high, unit in units]
    return ", ".join([name, *filter(None, limits)])


def _span(low: float | None, high: float | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low:,}{unit}"
    return f"at most {high:,}{unit}" if low is None else f"{low:,} to {high:,}{unit}"


def _values(values: list[Any]) -> str:
    shown = ", ".join(f"`{value}`" for value in values[:MOST_VALUES])
    return shown if len(values) <= MOST_VALUES else f"{shown}, ..."


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _request_table(title: str, rows: list[Field]) -> Iterator[str]:
    if not rows:
        return
    yield from (title, "", "| name | type and limits | default | meaning |", "|---|---|---|---|")
    for name, kind, default, meaning, required in rows:
        yield f"| `{name}` | {_cell(kind)} | {'required' if required else _cell(default)} | {_cell(meaning)} |"
    yield ""


def _answer_table(rows: list[Field]) -> Iterator[str]:
    if not rows:
        yield from ("Answer: a JSON object.", "")
        return
    yield from ("Answer:", "", "| field | type | meaning |", "|---|---|---|")
    for name, kind, _, meaning, _ in rows:
        yield f"| `{name}` | {_cell(kind)} | {_cell(meaning)} |"
    yield ""


def _cell(text: str) -> str:
    """Text that keeps a table row in one piece."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
