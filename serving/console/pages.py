"""The pages: sign in, who is slipping away, one customer, and finding one; answered in HTML and never in JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.routing import APIRoute
from starlette.responses import FileResponse, RedirectResponse, Response

from customers import access
from customers.orderings import Order
from customers.shop import ShopDown
from serving import desk, problems, roles, visits
from serving.api import customers
from serving.console import listing, paper, session, view
from serving.problems import Problem
from serving.schemas import Band

UNKNOWN = "No key of this shop. Take it as it was printed, from rg_ to its end."
NOT_FOR = "This key is for a till; the desk's pages need the key of an agent, a campaign, an analyst or an admin."
#: What is typed into a search is a name or a number, not a letter.
LONGEST = 200


class Page(APIRoute):
    """A route whose refusals are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own work, with what it refuses put into words for a person."""
        work = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await work(request)
            except (Problem, ShopDown) as error:
                return paper.refusal(problems.of(error), visits.current().request_id, request.url.path)

        return answer


router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/")
def at_risk(
    cursor: Annotated[str | None, Query(max_length=400)] = None,
    band: Annotated[Band | None, Query()] = None,
    min_value: Annotated[str, Query(max_length=20)] = "",
    order: Annotated[Order, Query()] = "probability",
) -> Response:
    """Who is slipping away, likeliest first."""
    here = desk.here()
    personal = visits.current().role in roles.SEE_PERSONAL
    told = listing.of(here, cursor=cursor, band=band, min_value=min_value, personal=personal, order=order)
    return paper.page("at_risk.html", list=told, zone=here.shop.zone, currency=here.shop.currency)


@router.get("/customers/{customer_id}")
def customer(customer_id: customers.CustomerId) -> Response:
    """One customer on one page."""
    here = desk.here()
    shown = view.of(here, customer_id)
    return paper.page("customer.html", view=shown, zone=here.shop.zone, within_days=view.WITHIN_DAYS)


@router.post("/find")
def find(asked: Annotated[str, Form(max_length=LONGEST)] = "") -> Response:
    """Go to a customer by id; who may see personal fields also by e-mail, phone or name. Sent in a form's body."""
    shop = desk.here().shop
    personal = visits.current().role in roles.SEE_PERSONAL
    found = listing.found(shop, asked.strip(), personal=personal)
    if len(found) == 1:
        return _go(f"/customers/{quote(found[0].customer_id, safe='')}")
    return paper.page("found.html", found=found, personal=personal)


@router.get("/sign-in")
def ask_for_a_key() -> Response:
    """The page that asks for a key."""
    return paper.sign_in("/")


@router.post("/sign-in")
def sign_in(request: Request, key: Annotated[str, Form()] = "", to: Annotated[str, Form()] = "/") -> Response:
    """Show a key once; from then on the browser remembers that it was shown."""
    shop = desk.here().shop
    role = access.role_of(shop, key.strip())
    if role is None:
        return paper.sign_in(_inside(to), status=401, wrong=UNKNOWN)
    if role not in roles.READERS:
        return paper.sign_in(_inside(to), status=403, wrong=NOT_FOR)
    response = _go(_inside(to))
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    session.begin(response, shop, key.strip(), secure=secure)
    return response


@router.post("/sign-out")
def sign_out() -> Response:
    """Forget who was signed in."""
    response = _go("/sign-in")
    session.end(response, desk.here().shop)
    return response


@router.get("/style.css")
def style() -> Response:
    """How the pages look."""
    return FileResponse(paper.FOLDER / "style.css", media_type="text/css", headers=paper.HEADERS)


@router.get("/icon.svg")
def icon() -> Response:
    """The sign on the door."""
    return FileResponse(paper.FOLDER / "icon.svg", media_type="image/svg+xml", headers=paper.HEADERS)


def _go(to: str) -> Response:
    """After a form, a page that may be loaded again without sending the form again."""
    return RedirectResponse(to, 303, headers=paper.HEADERS)


def _inside(to: str) -> str:
    """A page of ours to go to; whatever else a form asks for becomes the first page."""
    inside = any(route.pattern.fullmatch(to) and route.method == "GET" and not route.open for route in roles.PAGES)
    return quote(to, safe="/:") if inside else "/"
