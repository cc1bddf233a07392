"""Paper: how the pages are written: templates filled in, every word escaped, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from serving.console import formatting
from serving.http import request_context
from serving.http.problems import Problem

HTML_MEDIA_TYPE = "text/html"
TEMPLATE_FOLDER = Path(__file__).parent / "templates"

#: A page may show itself and be told by itself, and that is all; it runs no script, not even its own.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}

_templates = Environment(
    loader=FileSystemLoader(TEMPLATE_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= formatting.FILTERS


def render_page(
    template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **variables: Any
) -> Response:
    """A page made from a template and what it is to say."""
    text = _templates.get_template(template).render(role=request_context.current().role, **variables)
    return Response(text, status, headers={**SECURITY_HEADERS, **(headers or {})}, media_type=HTML_MEDIA_TYPE)


def render_sign_in(to: str, *, status: int = 200, error: str | None = None) -> Response:
    """The page that asks for a key, and where to go from there."""
    return render_page("sign_in.html", status=status, to=to, wrong=error)


def render_problem(problem: Problem, request_id: str, path: str) -> Response:
    """A problem as a page; where only the key is missing, the page that asks for it."""
    if problem.status == 401:
        return render_sign_in(path, status=401)
    title = HTTPStatus(problem.status).phrase
    variables = {"title": title, "detail": problem.detail, "request_id": request_id, "mistakes": problem.errors}
    return render_page("refusal.html", status=problem.status, headers=problem.headers, **variables)
