"""One visit: who asks, for what, and since when; known to whatever works on the answer."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

from serving.http.routes import Route

# Only what no name or address can look like is taken over from the caller.
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass
class RequestContext:
    """A request between its first and its last byte."""

    request_id: str
    started: float
    route: Route | None = None
    role: str | None = None

    @property
    def took_ms(self) -> float:
        """Milliseconds since the request came in."""
        return round((perf_counter() - self.started) * 1000, 3)


_current: ContextVar[RequestContext] = ContextVar("visit")


def begin(client_request_id: str = "") -> RequestContext:
    """Begin a visit; the caller's own request id is kept where it is a UUID."""
    request_id = client_request_id if _UUID.fullmatch(client_request_id) else str(uuid.uuid4())
    context = RequestContext(request_id, perf_counter())
    _current.set(context)
    return context


def current() -> RequestContext:
    """The visit being worked on; outside the server, a new one without a key."""
    return _current.get(None) or begin()
