"""The demo: load a real grocer's year, train on it and score its customers, in a home of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from customers import setup
from customers.loading.connectors import complete_journey
from customers.security import api_keys
from customers.shop import settings
from customers.shop.settings import Shop
from pipelines import operations
from pipelines.nightly import run as nightly_run
from pipelines.reporting import terminal_text

LOAD_ORDER = ("customers", "products", "transactions", "offers", "interactions", "consents")


def run_demo(home: Path, *, port: int, progress: Callable[[str], None]) -> None:
    """Create the shop where there is none, load the Complete Journey, run the nightly run, and print the results.

    A second call reuses everything: the same records change nothing, and a run on the same sales by the same code
    reuses its model versions.
    """
    shop = _open_or_create_shop(home)
    with TemporaryDirectory(prefix="complete-journey-") as folder:
        complete_journey.write_files(Path(folder))
        for kind in LOAD_ORDER:
            loaded = operations.load_records(shop, kind, [Path(folder) / f"{kind}.parquet"], source="files")
            progress(
                f"{kind}: {loaded['read']:,} read, {loaded['inserted']:,} new, {loaded['rejected']:,} rejected, "
                f"{loaded['seconds']:.0f} s"
            )
    progress(
        "These households are members of a loyalty programme: marketing_post = granted is recorded for each of them."
    )
    summary = nightly_run.run_nightly(shop, progress=progress)
    print(terminal_text.format_nightly(summary))  # noqa: T201 - the output of the command
    print(terminal_text.format_demo(shop, _write_admin_key(shop), port))  # noqa: T201


def _open_or_create_shop(home: Path) -> Shop:
    if (home / "regulars.toml").exists():
        return settings.open_shop(home)
    return setup.init_home(home, timezone="America/New_York", currency="USD", now="last-sale")


def _write_admin_key(shop: Shop) -> Path:
    """Write an admin key for the demo to a file that only its owner may read; its path."""
    path = shop.home / "demo.key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(api_keys.create_key(shop, "admin") + "\n")
    return path
