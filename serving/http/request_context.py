"""Request context: id, start, route and role of the request that is being served."""

from __future__ import annotations

import re
import uuid
from collections.abc import Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

from serving.http.routes import Route

# Only a UUID is accepted from the caller: it cannot be a name or an address.
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Degradation:
    """Why an answer is not of the present: it uses what was known at `features_as_of`, `age_seconds` ago."""

    reason: str
    features_as_of: datetime
    age_seconds: float


@dataclass
class RequestContext:
    """One request. `started` is a reading of perf_counter(), in seconds.

    `database_version` is that of the customer database as the request came in (see `customers.database.direct_reads`);
    None where it was not read, and `is_database_away` where it could not be.
    """

    request_id: str
    started: float
    route: Route | None = None
    role: str | None = None
    database_version: Hashable = None
    is_database_away: bool = False
    degraded: Degradation | None = None

    @property
    def took_ms(self) -> float:
        """Milliseconds since the request came in."""
        return round((perf_counter() - self.started) * 1000, 3)


_current: ContextVar[RequestContext] = ContextVar("request_context")


def begin(client_request_id: str = "") -> RequestContext:
    """Begin a request; the client's own request id is used if it is a UUID."""
    request_id = client_request_id if _UUID.fullmatch(client_request_id) else str(uuid.uuid4())
    context = RequestContext(request_id, perf_counter())
    _current.set(context)
    return context


def current() -> RequestContext:
    """The request that is being served; outside the server, a new one without a role."""
    return _current.get(None) or begin()


def log_fields() -> dict[str, str]:
    """The id and route template of the request that is being served, for the log; empty outside a request."""
    context = _current.get(None)
    if context is None:
        return {}
    route = {"route": context.route.path} if context.route else {}
    return {"request_id": context.request_id, **route}
