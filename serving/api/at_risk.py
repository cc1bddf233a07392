"""Who may be drifting away: the retention desk's list, likeliest to leave first, a page at a time."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/v1/at-risk", tags=["lists"])
