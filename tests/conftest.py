"""One quiet machine for every test, and a small grocer whose records any test may load."""

import csv
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

# No telemetry, and two cores that are not fought over; set before numpy is loaded.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    BENTOML_DO_NOT_TRACK="True",
    OMP_WAIT_POLICY="PASSIVE",
    OPENBLAS_NUM_THREADS="1",
)
for name in [name for name in os.environ if name.startswith("REGULARS_") or name == "MLFLOW_TRACKING_URI"]:
    del os.environ[name]

import numpy as np  # noqa: E402
import pytest  # noqa: E402

ZONE = ZoneInfo("America/New_York")
OPENED = datetime(2025, 1, 6, tzinfo=ZONE)
HISTORY_DAYS = 200
LINE = ("order_id", "line_id", "customer_id", "product_id", "sold_at", "quantity", "amount", "discount")


def write_csv(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    """A file as a till would export it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture
def till(tmp_path: Path) -> Callable[..., Path]:
    """A till that exports the lines it is given: till(line, line, ...), or with other columns as `head`."""

    def export(*rows: tuple[object, ...], head: tuple[str, ...] = LINE) -> Path:
        return write_csv(tmp_path / "till.csv", head, list(rows))

    return export


@pytest.fixture(scope="session")
def small_shop_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Customers, products and transactions of a small grocer, as CSV.

    Customers come after steady gaps of their own, 2 to 30 days, and four in ten stop one day; each buys
    favourites of their own.
    """
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("grocer")
    lines: list[tuple[object, ...]] = []
    for number in range(220):
        gap = float(np.exp(rng.uniform(np.log(2), np.log(30))))
        leaves = HISTORY_DAYS if rng.random() < 0.6 else rng.uniform(20, HISTORY_DAYS)
        favourites = rng.choice(60, 6, replace=False)
        day = rng.uniform(0, gap)
        while day < leaves:
            sold_at = (OPENED + timedelta(days=int(day), hours=12)).isoformat()
            chosen = {*rng.choice(favourites, 3, replace=False).tolist(), int(rng.integers(60))}
            for place, product in enumerate(sorted(chosen)):
                who = f"c{number:03d}"
                lines.append((f"{who}-{int(day)}", place, who, f"p{product:02d}", sold_at, 1, 2 + product % 7, 0))
            day += rng.gamma(4, gap / 4) + 1
    people = [(f"c{number:03d}", "张伟" if number % 2 else "Zoë", f"c{number}@example.com") for number in range(220)]
    goods = [(f"p{n:02d}", f"product {n}", ("bread", "milk", "fruit", "paper")[n % 4], "food") for n in range(60)]
    write_csv(folder / "customers.csv", ("customer_id", "given_name", "email"), people)
    write_csv(folder / "products.csv", ("product_id", "name", "category", "department"), goods)
    write_csv(folder / "transactions.csv", LINE, lines)
    return folder
