"""The as_of of the last night whose files a home has, written when all of them are there."""

import json
from datetime import datetime
from pathlib import Path

from customers.shop import durable_files


def write_marker(home: Path, as_of: datetime) -> None:
    """Record that this home has all files of the night of this as_of."""
    durable_files.write_atomically(home / "night.json", json.dumps({"as_of": as_of.isoformat()}))


def read_marker(home: Path) -> datetime | None:
    """The as_of of that night; None before the first one."""
    path = home / "night.json"
    return datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["as_of"]) if path.exists() else None
