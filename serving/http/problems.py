"""Problem responses (RFC 9457), with the next step for the caller and without anything that the caller sent."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from customers.shop.errors import ShopUnavailable

PROBLEM_JSON = "application/problem+json"

#: The details of problems that are raised without one.
DEFAULT_DETAILS = {
    400: "The request could not be read; send one JSON object.",
    401: "Send a key: Authorization: Bearer KEY. An admin makes one with: regulars keys add ROLE.",
    403: "This key's role may not ask for this.",
    404: "There is nothing here; /openapi.json lists what can be asked.",
    405: "This can only be asked with the methods named in Allow.",
    413: "The request is too large; send fewer records at a time.",
    415: "Send the question as application/json, in UTF-8 and uncompressed.",
    422: "Some fields cannot be accepted; see errors.",
    429: "Too much at once; send it again after Retry-After.",
    500: "Something went wrong here; the server's log has this request_id.",
    503: "This cannot be answered now; try again, and see /readyz.",
}


class Problem(Exception):
    """An error that is safe to show to the caller: no names, no paths, nothing that they sent."""

    def __init__(
        self,
        status: int,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.status = status
        self.detail = detail or DEFAULT_DETAILS.get(status, HTTPStatus(status).phrase)
        self.errors = [dict(error) for error in errors]
        self.headers = dict(headers or {})
        self.members = members
        super().__init__(self.detail)

    def response(self, request_id: str = "") -> Response:
        """The problem as an HTTP response (RFC 9457)."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if request_id:
            document["request_id"] = request_id
        if self.errors:
            document["errors"] = self.errors
        return Response(
            json.dumps(document | self.members, ensure_ascii=False),
            self.status,
            headers=self.headers,
            media_type=PROBLEM_JSON,
        )


def from_exception(error: Exception) -> Problem:
    """The Problem to answer for an exception; of any other error than a Problem no text is shown."""
    if isinstance(error, Problem):
        return error
    return Problem(503, headers={"Retry-After": "5"}) if isinstance(error, ShopUnavailable) else Problem(500)


def from_response(status: int, body: bytes, allow: str | None = None) -> Problem:
    """Convert a framework's error response: where its fields failed validation and why remains, other text does not."""
    entries = _validation_errors(body) if status in (400, 422) else []
    if entries:
        return Problem(422, errors=[_to_error(entry) for entry in entries])
    return Problem(status, headers={"Allow": allow} if allow else None)


def _validation_errors(body: bytes) -> list[dict[str, Any]]:
    """The validation errors in a response of FastAPI or BentoML: both put pydantic's under "detail"."""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return []
    return [entry for entry in detail if isinstance(entry, dict)] if isinstance(detail, list) else []


def _to_error(entry: Mapping[str, Any]) -> dict[str, str]:
    """Location and message of a validation error, without pydantic's `input` and `ctx`, which repeat what was sent."""
    location, *path = [*entry.get("loc", ())] or [""]
    message = str(entry.get("msg", "cannot be accepted")).removeprefix("Value error, ")
    if location in ("query", "path", "header"):
        return {"parameter": "/".join(map(str, path)), "detail": message}
    steps = path if location == "body" else [location, *path]
    return {"pointer": "".join(f"/{step}" for step in steps if step != ""), "detail": message}


def describe_traceback(error: BaseException) -> str:
    """Type and code lines of an error for the log, without its message, which may contain personal data."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    steps = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
    return f"{type(error).__name__} at {' < '.join(steps)}"


class PrivacyLogFilter(logging.Filter):
    """Log filter for frameworks: errors are logged by location without their message, rejected requests not at all."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the error of a record by its location in the code; drop the record of a validation error."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.msg, record.args, record.exc_info = describe_traceback(error), (), None
        return not isinstance(error, ValidationError)
