"""Templating of the console pages: Jinja templates with autoescaping, which load nothing from other sites."""

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
from serving.http.responses import HTML_MEDIA_TYPE

TEMPLATE_FOLDER = Path(__file__).parent / "templates"

#: A page may load only its own style sheet and images and send forms to this server; it runs no script at all.
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
    """Render a template as a page with the security headers."""
    text = _templates.get_template(template).render(role=request_context.current().role, **variables)
    return Response(text, status, headers={**SECURITY_HEADERS, **(headers or {})}, media_type=HTML_MEDIA_TYPE)


def render_sign_in(to: str, *, status: int = 200, error: str | None = None) -> Response:
    """The sign-in page; `to` is the path to open after the sign-in."""
    return render_page("sign_in.html", status=status, to=to, wrong=error)


def render_problem(problem: Problem, request_id: str, path: str) -> Response:
    """A problem as a page; for 401 the sign-in page."""
    if problem.status == 401:
        return render_sign_in(path, status=401)
    title = HTTPStatus(problem.status).phrase
    variables = {"title": title, "detail": problem.detail, "request_id": request_id, "mistakes": problem.errors}
    return render_page("refusal.html", status=problem.status, headers=problem.headers, **variables)
