"""The demo: a real grocer's year, loaded, learned from and scored, in a home of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from customers import access
from customers import shop as shops
from customers.shop import Shop
from customers.sources import complete_journey
from pipelines import night, report, steps

KINDS = ("customers", "products", "transactions", "offers", "interactions", "consents")


def play(home: Path, *, port: int, tell: Callable[[str], None]) -> None:
    """Make the shop where there is none, load the Complete Journey, run the night, and print what came of it.

    A second time everything that is there is reused: the same records change nothing, and a night over the same
    days and the same code finds its models again.
    """
    shop = _shop(home)
    with TemporaryDirectory(prefix="complete-journey-") as folder:
        complete_journey.write(Path(folder))
        for kind in KINDS:
            loaded = steps.ingest(shop, kind, [Path(folder) / f"{kind}.parquet"], source="files")
            tell(f"{kind}: {loaded['read']:,} read, {loaded['inserted']:,} new, {loaded['rejected']:,} rejected, "
                 f"{loaded['seconds']:.0f} s")  # fmt: skip
    tell("These households are members of a loyalty scheme: marketing_post = granted is recorded for each of them.")
    told = night.run(shop, tell=tell)
    print(report.of_night(told))  # noqa: T201 - the summary is what the command is for
    print(report.of_demo(shop, _key(shop), port))  # noqa: T201


def _shop(home: Path) -> Shop:
    if (home / "regulars.toml").exists():
        return shops.open(home)
    return shops.init(home, timezone="America/New_York", currency="USD", now="last-sale")


def _key(shop: Shop) -> Path:
    """An admin key for trying things out, in a file that only its owner may read."""
    path = shop.home / "demo.key"
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(access.add(shop, "admin") + "\n")
    return path
