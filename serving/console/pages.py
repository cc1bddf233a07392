"""Console pages: sign-in, at-risk list, one customer, and customer search; always HTML, never JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.routing import APIRoute
from starlette.responses import FileResponse, RedirectResponse, Response

from customers.reports.sort_orders import SortOrder
from customers.security import api_keys
from customers.shop.errors import ShopUnavailable
from customers.shop.retention_costs import Band
from serving import runtime
from serving.api import customers
from serving.console import customer_list, customer_page, templating
from serving.http import problems, request_context, routes, session_cookie
from serving.http.problems import Problem

UNKNOWN_KEY = "No key of this shop. Take it as it was printed, from rg_ to its end."
ROLE_NOT_ALLOWED = "This key is for a till; these pages need the key of an agent, a campaign, an analyst or an admin."
#: A search is a name, an address or a number, so a longer text is rejected.
MAX_SEARCH_LENGTH = 200


class PageRoute(APIRoute):
    """A route whose problems are rendered as pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, with Problem and ShopUnavailable rendered as pages."""
        route_handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await route_handler(request)
            except (Problem, ShopUnavailable) as error:
                return templating.render_problem(
                    problems.from_exception(error), request_context.current().request_id, request.url.path
                )

        return answer


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
def show_customer_list(
    cursor: Annotated[str | None, Query(max_length=400)] = None,
    band: Annotated[Band | None, Query()] = None,
    min_value: Annotated[str, Query(max_length=20)] = "",
    order: Annotated[SortOrder, Query()] = "probability",
) -> Response:
    """The at-risk list, most probable churn first."""
    server_runtime = runtime.get_runtime()
    show_personal = request_context.current().role in routes.PERSONAL_DATA_ROLES
    list_page = customer_list.load_list_page(
        server_runtime, cursor=cursor, band=band, min_value=min_value, show_personal=show_personal, order=order
    )
    return templating.render_page(
        "at_risk.html", list=list_page, zone=server_runtime.shop.zone, currency=server_runtime.shop.currency
    )


@router.get("/customers/{customer_id}")
def show_customer(customer_id: customers.CustomerId) -> Response:
    """The page of one customer."""
    server_runtime = runtime.get_runtime()
    page = customer_page.load_customer_page(server_runtime, customer_id)
    return templating.render_page(
        "customer.html", view=page, zone=server_runtime.shop.zone, within_days=customer_page.WITHIN_DAYS
    )


@router.post("/find")
def find_customer(
    search_text: Annotated[str, Form(alias="asked", max_length=MAX_SEARCH_LENGTH)] = "",
) -> Response:
    """Find a customer by id, or for roles that may see personal fields by e-mail address, phone number or name.

    The search text is in the body of the form, because personal data must not be in a URL.
    """
    shop = runtime.get_runtime().shop
    show_personal = request_context.current().role in routes.PERSONAL_DATA_ROLES
    matches = customer_list.find_customers(shop, search_text.strip(), show_personal=show_personal)
    if len(matches) == 1:
        return _redirect(f"/customers/{quote(matches[0].customer_id, safe='')}")
    return templating.render_page("found.html", matches=matches, personal=show_personal)


@router.get("/sign-in")
def show_sign_in() -> Response:
    """The sign-in page, which asks for an API key."""
    return templating.render_sign_in("/")


@router.post("/sign-in")
def sign_in(request: Request, key: Annotated[str, Form()] = "", to: Annotated[str, Form()] = "/") -> Response:
    """Check an API key and set the session cookie."""
    shop = runtime.get_runtime().shop
    role = api_keys.role_for_key(shop, key.strip())
    if role is None:
        return templating.render_sign_in(_safe_path(to), status=401, error=UNKNOWN_KEY)
    if role not in routes.CONSOLE_ROLES:
        return templating.render_sign_in(_safe_path(to), status=403, error=ROLE_NOT_ALLOWED)
    response = _redirect(_safe_path(to))
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    session_cookie.set_session(response, shop, key.strip(), secure=secure)
    return response


@router.post("/sign-out")
def sign_out() -> Response:
    """Delete the session cookie."""
    response = _redirect("/sign-in")
    session_cookie.clear_session(response, runtime.get_runtime().shop)
    return response


@router.get("/style.css")
def serve_stylesheet() -> Response:
    """The style sheet of the pages."""
    return FileResponse(
        templating.TEMPLATE_FOLDER / "style.css", media_type="text/css", headers=templating.SECURITY_HEADERS
    )


@router.get("/icon.svg")
def serve_icon() -> Response:
    """The icon of the pages."""
    return FileResponse(
        templating.TEMPLATE_FOLDER / "icon.svg", media_type="image/svg+xml", headers=templating.SECURITY_HEADERS
    )


def _redirect(to: str) -> Response:
    """Redirect (303) after a form, so that reloading the page does not send the form again."""
    return RedirectResponse(to, 303, headers=templating.SECURITY_HEADERS)


def _safe_path(to: str) -> str:
    """The path if it is one of our pages, else that of the first page: a form must not redirect elsewhere."""
    is_console_page = any(
        route.pattern.fullmatch(to) and route.method == "GET" and not route.is_public for route in routes.PAGES
    )
    return quote(to, safe="/:") if is_console_page else "/"
