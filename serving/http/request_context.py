"""One visit: who asks, for what, and since when; known to whatever works on the answer."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

from serving.roles import Route

# Only what no name or address can look like is taken over from the caller.
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass
class Visit:
    """A request between its first and its last byte."""

    request_id: str
    started: float
    route: Route | None = None
    role: str | None = None

    @property
    def took_ms(self) -> float:
        """Milliseconds since the request came in."""
        return round((perf_counter() - self.started) * 1000, 3)


_current: ContextVar[Visit] = ContextVar("visit")


def begin(asked_id: str = "") -> Visit:
    """Begin a visit; the caller's own request id is kept where it is a UUID."""
    request_id = asked_id if _UUID.fullmatch(asked_id) else str(uuid.uuid4())
    visit = Visit(request_id, perf_counter())
    _current.set(visit)
    return visit


def current() -> Visit:
    """The visit being worked on; outside the server, a new one without a key."""
    return _current.get(None) or begin()
