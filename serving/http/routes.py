"""Who may ask for what: one row a question, and nothing is answered that has no row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

ROLES = frozenset({"admin", "agent", "campaign", "analyst", "till"})

#: Personal fields (names, addresses, birthdays) are shown to these alone.
PERSONAL_DATA_ROLES = frozenset({"admin", "agent"})

#: Needs no key: these say nothing about any customer, and those who probe and scrape have none to send.
PUBLIC = frozenset({"anyone"})
_STAFF_ROLES = ROLES - {"till"}


@dataclass(frozen=True)
class Route:
    """One question: its method, its path with names in braces, and the roles that may ask it."""

    method: str
    path: str
    roles: frozenset[str]
    #: Read by people in a browser, who sign in with a form: what comes and goes is HTML.
    is_page: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a path must look like to be this question."""
        return re.compile(re.sub(r"\{\w+\}", "[^/]+", self.path))

    @property
    def is_public(self) -> bool:
        """Whether it is answered without a key."""
        return self.roles is PUBLIC


ROUTES = (
    Route("GET", "/livez", PUBLIC),
    Route("GET", "/readyz", PUBLIC),
    Route("GET", "/metrics", PUBLIC),
    Route("GET", "/openapi.json", PUBLIC),
    Route("POST", "/v1/recommendations", ROLES),
    Route("POST", "/v1/offers", ROLES),
    Route("POST", "/v1/churn", _STAFF_ROLES),
    Route("POST", "/v1/next-purchase", _STAFF_ROLES),
    Route("POST", "/v1/value", _STAFF_ROLES),
    Route("POST", "/v1/restock", _STAFF_ROLES),
    Route("POST", "/v1/similar", ROLES),
    Route("POST", "/v1/audience", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}/recommendations", ROLES),
    Route("GET", "/v1/customers/{customer_id}/offers", ROLES),
    Route("GET", "/v1/customers/{customer_id}/churn", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}/next-purchase", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}/value", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}/restock", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}/scores", _STAFF_ROLES),
    Route("GET", "/v1/customers/{customer_id}", _STAFF_ROLES),
    Route("GET", "/v1/at-risk", _STAFF_ROLES),
    Route("POST", "/v1/transactions", frozenset({"admin", "till"})),
    Route("POST", "/v1/interactions", frozenset({"admin", "agent", "campaign"})),
    Route("POST", "/v1/customers", frozenset({"admin", "agent"})),
    Route("POST", "/v1/consents", frozenset({"admin", "agent"})),
    Route("POST", "/v1/products", frozenset({"admin"})),
    Route("POST", "/v1/catalogue/offers", frozenset({"admin", "campaign"})),
    Route("POST", "/v1/customers/{customer_id}/export", PERSONAL_DATA_ROLES),
    Route("POST", "/v1/customers/{customer_id}/erase", PERSONAL_DATA_ROLES),
)

#: Whose work the pages are for.
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
    """The questions that can be asked at this path: none, or one a method."""
    return [route for route in (*ROUTES, *PAGES) if route.pattern.fullmatch(path)]
