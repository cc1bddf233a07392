"""Paper: how the pages are written: templates filled in, every word escaped, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from serving import visits
from serving.console import wording
from serving.problems import Problem

HTML = "text/html"
FOLDER = Path(__file__).parent / "templates"

#: A page may show itself and be told by itself, and that is all; it runs no script, not even its own.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}

_templates = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_templates.filters |= wording.FILTERS


def page(template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **said: Any) -> Response:
    """A page made from a template and what it is to say."""
    text = _templates.get_template(template).render(role=visits.current().role, **said)
    return Response(text, status, headers={**HEADERS, **(headers or {})}, media_type=HTML)


def sign_in(to: str, *, status: int = 200, wrong: str | None = None) -> Response:
    """The page that asks for a key, and where to go from there."""
    return page("sign_in.html", status=status, to=to, wrong=wrong)


def refusal(problem: Problem, request_id: str, path: str) -> Response:
    """A problem as a page; where only the key is missing, the page that asks for it."""
    if problem.status == 401:
        return sign_in(path, status=401)
    title = HTTPStatus(problem.status).phrase
    facts = {"title": title, "detail": problem.detail, "request_id": request_id, "mistakes": problem.errors}
    return page("refusal.html", status=problem.status, headers=problem.headers, **facts)
