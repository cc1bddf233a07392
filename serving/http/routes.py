"""Who may ask for what: one row a question, and nothing is answered that has no row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

ROLES = frozenset({"admin", "agent", "campaign", "analyst", "till"})

#: Personal fields (names, addresses, birthdays) are shown to these alone.
SEE_PERSONAL = frozenset({"admin", "agent"})

#: Needs no key: these say nothing about any customer, and those who probe and scrape have none to send.
ANYONE = frozenset({"anyone"})
_DESKS = ROLES - {"till"}


@dataclass(frozen=True)
class Route:
    """One question: its method, its path with names in braces, and the roles that may ask it."""

    method: str
    path: str
    roles: frozenset[str]
    #: Read by people in a browser, who sign in with a form: what comes and goes is HTML.
    page: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a path must look like to be this question."""
        return re.compile(re.sub(r"\{\w+\}", "[^/]+", self.path))

    @property
    def open(self) -> bool:
        """Whether it is answered without a key."""
        return self.roles is ANYONE


ROUTES = (
    Route("GET", "/livez", ANYONE),
    Route("GET", "/readyz", ANYONE),
    Route("GET", "/metrics", ANYONE),
    Route("GET", "/openapi.json", ANYONE),
    Route("POST", "/v1/recommendations", ROLES),
    Route("POST", "/v1/offers", ROLES),
    Route("POST", "/v1/churn", _DESKS),
    Route("POST", "/v1/next-purchase", _DESKS),
    Route("POST", "/v1/value", _DESKS),
    Route("POST", "/v1/restock", _DESKS),
    Route("POST", "/v1/similar", ROLES),
    Route("POST", "/v1/audience", _DESKS),
    Route("GET", "/v1/customers/{customer_id}/recommendations", ROLES),
    Route("GET", "/v1/customers/{customer_id}/offers", ROLES),
    Route("GET", "/v1/customers/{customer_id}/churn", _DESKS),
    Route("GET", "/v1/customers/{customer_id}/next-purchase", _DESKS),
    Route("GET", "/v1/customers/{customer_id}/value", _DESKS),
    Route("GET", "/v1/customers/{customer_id}/restock", _DESKS),
    Route("GET", "/v1/customers/{customer_id}/scores", _DESKS),
    Route("GET", "/v1/customers/{customer_id}", _DESKS),
    Route("GET", "/v1/at-risk", _DESKS),
    Route("POST", "/v1/transactions", frozenset({"admin", "till"})),
    Route("POST", "/v1/interactions", frozenset({"admin", "agent", "campaign"})),
    Route("POST", "/v1/customers", frozenset({"admin", "agent"})),
    Route("POST", "/v1/consents", frozenset({"admin", "agent"})),
    Route("POST", "/v1/products", frozenset({"admin"})),
    Route("POST", "/v1/catalogue/offers", frozenset({"admin", "campaign"})),
    Route("POST", "/v1/customers/{customer_id}/export", SEE_PERSONAL),
    Route("POST", "/v1/customers/{customer_id}/erase", SEE_PERSONAL),
)

#: Whose work the pages are for.
READERS = _DESKS
PAGES = (
    Route("GET", "/", _DESKS, page=True),
    Route("GET", "/customers/{customer_id}", _DESKS, page=True),
    Route("POST", "/find", _DESKS, page=True),
    Route("GET", "/sign-in", ANYONE, page=True),
    Route("POST", "/sign-in", ANYONE, page=True),
    Route("POST", "/sign-out", ANYONE, page=True),
    Route("GET", "/style.css", ANYONE, page=True),
    Route("GET", "/icon.svg", ANYONE, page=True),
)


def matching(path: str) -> list[Route]:
    """The questions that can be asked at this path: none, or one a method."""
    return [route for route in (*ROUTES, *PAGES) if route.pattern.fullmatch(path)]
