"""Routes and the roles that may call them, a row per route; a path without a row is not served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

ROLES = frozenset({"admin", "agent", "campaign", "analyst", "till"})

#: Personal fields (names, addresses, birthdays) are shown to these roles only.
PERSONAL_DATA_ROLES = frozenset({"admin", "agent"})

#: Routes without a key: they show nothing about any customer, and health probes and scrapers have no key to send.
PUBLIC = frozenset({"anyone"})
_STAFF_ROLES = ROLES - {"till"}
#: Whole tables, without personal fields, are for those who work with all customers.
_EXPORT_ROLES = frozenset({"admin", "campaign", "analyst"})


@dataclass(frozen=True)
class Route:
    """A route: its method, its path with parameter names in braces, and the roles that may call it."""

    method: str
    path: str
    roles: frozenset[str]
    #: A page for people in a browser, who sign in with a form: forms come in, HTML goes out.
    is_page: bool = False
    #: Answered from what the worker has in memory while the database does not answer.
    answers_without_database: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern of the paths that belong to this route."""
        return re.compile(re.sub(r"\{\w+\}", "[^/]+", self.path))

    @property
    def is_public(self) -> bool:
        """Whether the route needs no key."""
        return self.roles is PUBLIC


ROUTES = (
    Route("GET", "/livez", PUBLIC),
    Route("GET", "/readyz", PUBLIC),
    Route("GET", "/metrics", PUBLIC),
    Route("GET", "/openapi.json", PUBLIC),
    Route("POST", "/v1/recommendations", ROLES, answers_without_database=True),
    Route("POST", "/v1/offers", ROLES, answers_without_database=True),
    Route("POST", "/v1/churn", _STAFF_ROLES, answers_without_database=True),
    Route("POST", "/v1/next-purchase", _STAFF_ROLES, answers_without_database=True),
    Route("POST", "/v1/value", _STAFF_ROLES, answers_without_database=True),
    Route("POST", "/v1/restock", _STAFF_ROLES, answers_without_database=True),
    Route("POST", "/v1/similar", ROLES),
    Route("POST", "/v1/audience", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}/recommendations", ROLES, answers_without_database=True),
    Route("GET", "/v1/customers/{customer_id}/offers", ROLES, answers_without_database=True),
    Route("GET", "/v1/customers/{customer_id}/churn", _STAFF_ROLES, answers_without_database=True),
    Route("GET", "/v1/customers/{customer_id}/next-purchase", _STAFF_ROLES, answers_without_database=True),
    Route("GET", "/v1/customers/{customer_id}/value", _STAFF_ROLES, answers_without_database=True),
    Route("GET", "/v1/customers/{customer_id}/restock", _STAFF_ROLES, answers_without_database=True),
    Route("GET", "/v1/customers/{customer_id}/scores", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}", _STAFF_ROLES),
    Route("GET", "/v1/at-risk", _STAFF_ROLES),
    Route("POST", "/v1/transactions", frozenset({"admin", "till"})),
    Route("POST", "/v1/interactions", frozenset({"admin", "agent", "campaign"})),
    Route("POST", "/v1/customers", frozenset({"admin", "agent"})),
    Route("POST", "/v1/consents", frozenset({"admin", "agent"})),
    Route("POST", "/v1/products", frozenset({"admin"})),
    Route("POST", "/v1/catalogue/offers", frozenset({"admin", "campaign"})),
    Route("POST", "/v1/exports", _EXPORT_ROLES),
    Route("GET", "/v1/exports/{export_id}", _EXPORT_ROLES),
    Route("GET", "/v1/exports/{export_id}/file", _EXPORT_ROLES),
    Route("POST", "/v1/customers/{customer_id}/export", PERSONAL_DATA_ROLES),
    Route("POST", "/v1/customers/{customer_id}/erase", PERSONAL_DATA_ROLES),
)

#: The roles that may sign in to the console.
CONSOLE_ROLES = _STAFF_ROLES
PAGES = (
    Route("GET", "/", _STAFF_ROLES, is_page=True),
    Route("GET", "/customers/{customer_id}", _STAFF_ROLES, is_page=True),
    Route("POST", "/find", _STAFF_ROLES, is_page=True),
    Route("GET", "/sign-in", PUBLIC, is_page=True),
    Route("POST", "/sign-in", PUBLIC, is_page=True),
    Route("POST", "/sign-out", PUBLIC, is_page=True),
    Route("GET", "/style.css", PUBLIC, is_page=True),
    Route("GET", "/icon.svg", PUBLIC, is_page=True),
)


def match_routes(path: str) -> list[Route]:
    """The routes of this path: none, or one per method."""
    first, last, count = _shape(path)
    by_shape = routes_by_shape()
    candidates = by_shape.get((first, last, count), []) + by_shape.get((first, None, count), [])
    return [route for route in candidates if route.pattern.fullmatch(path)]


@cache
def routes_by_shape() -> dict[tuple[str, str | None, int], list[Route]]:
    """The routes by their first and last part, None for a parameter, and the number of their parts."""
    by_shape: dict[tuple[str, str | None, int], list[Route]] = {}
    for route in (*ROUTES, *PAGES):
        first, last, count = _shape(route.path)
        by_shape.setdefault((first, None if last.startswith("{") else last, count), []).append(route)
    return by_shape


def _shape(path: str) -> tuple[str, str, int]:
    parts = path.split("/")
    return parts[1] if len(parts) > 1 else "", parts[-1], len(parts)
