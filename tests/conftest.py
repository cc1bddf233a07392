"""Shared test set-up: environment, PostgreSQL and Redis servers, and the records of a small grocer as CSV files."""

import csv
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from zoneinfo import ZoneInfo

# No telemetry, and no competition for two cores; set before numpy is loaded.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    BENTOML_DO_NOT_TRACK="True",
    OMP_WAIT_POLICY="PASSIVE",
    OPENBLAS_NUM_THREADS="1",
    DAGSTER_DISABLE_TELEMETRY="yes",
)
#: In CI a missing PostgreSQL or Redis fails the test; elsewhere the test is skipped.
SERVERS_REQUIRED = os.environ.get("REGULARS_REQUIRE_SERVERS") == "1"
for name in [name for name in os.environ if name.startswith("REGULARS_") or name == "MLFLOW_TRACKING_URI"]:
    del os.environ[name]

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from customers import tracing  # noqa: E402

ZONE = ZoneInfo("America/New_York")
OPENED = datetime(2025, 1, 6, tzinfo=ZONE)
HISTORY_DAYS = 200
PEOPLE = 160
CATEGORIES = ("bread", "milk", "fruit", "paper")
LINE = ("order_id", "line_id", "customer_id", "product_id", "sold_at", "quantity", "amount", "discount")
OFFER = ("offer_id", "campaign_id", "starts_at", "ends_at", "value", "value_kind", "channels", "audience", "categories")
INTERACTION = ("interaction_id", "customer_id", "happened_at", "channel", "kind", "campaign_id", "offer_id")


#: The slowest files, as path endings: they run first, so that no worker is left alone with one at the end.
SLOWEST = (
    "/test_leakage.py", "/test_notebooks.py", "/test_server.py", "/nightly/test_run.py", "/test_home_of_0_4_0.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first; within a file tests keep their written order."""
    items.sort(key=lambda item: _file_order(item.path.as_posix()))


def _file_order(path: str) -> int:
    """The position of a file in SLOWEST; files that are not in it come last."""
    return next((place for place, ending in enumerate(SLOWEST) if path.endswith(ending)), len(SLOWEST))


def write_csv(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    """Write rows as a CSV file with a header row, as a till exports it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test session, on a free local port, without a database."""
    with _postgres_folder() as folder, _run_postgres(folder, _free_port()) as (url, _):
        yield url


@contextmanager
def _postgres_folder() -> Iterator[Path]:
    """The data of a PostgreSQL server that has not run yet."""
    user = _postgres_user()
    with _server_folder(user) as folder:
        options = ["-D", str(folder), "-U", "grocer", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run([_find_binary("initdb"), *options], user=user, cwd=folder, check=True, capture_output=True)
        yield folder


@contextmanager
def _run_postgres(folder: Path, port: int) -> Iterator[tuple[str, int]]:
    """A server over this data; its URL without a database, and its process id."""
    durability_off = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")
    settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *durability_off]
    command = [_find_binary("postgres"), "-D", str(folder), *(f"--{setting}" for setting in settings)]
    url = f"postgresql://grocer@127.0.0.1:{port}"
    ready, user = lambda: _accepts_connections(url), _postgres_user()
    with _run_server(command, folder, ready, user=user, stop_signal=signal.SIGQUIT) as process:
        yield url, process.pid


class StoppablePostgres:
    """A PostgreSQL server with one database, which is stopped, started again, or left hanging: `url` is its address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = _free_port()
        self._running = ExitStack()
        self.start()
        import psycopg

        server = self.url.rpartition("/")[0]
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("create database shop")

    def start(self) -> None:
        """Start the server on the port that it had before."""
        server, self._pid = self._running.enter_context(_run_postgres(self._folder, self._port))
        self.url = f"{server}/shop"

    def stop(self) -> None:
        """Stop the server at once, and all its connections."""
        self._running.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server and its connections stand still inside the block: nothing is refused and nothing answered."""
        processes = [psutil.Process(self._pid), *psutil.Process(self._pid).children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()


@pytest.fixture(scope="module")
def stoppable_postgres() -> Iterator[StoppablePostgres]:
    """A PostgreSQL server of its own, which a test may stop and start."""
    with _postgres_folder() as folder:
        server = StoppablePostgres(folder)
        yield server
        server.stop()


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Callable[..., str]:
    """Creates a database, empty or as a copy of another, and returns its URL: new_database(like=None)."""
    import psycopg

    numbers = count()

    def make(like: str | None = None) -> str:
        name, template = f"shop_{next(numbers)}", like.rpartition("/")[2] if like else "template0"
        with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
            connection.execute(f"create database {name} template {template}")
        return f"{postgres}/{name}"

    return make


@pytest.fixture
def postgres_url(new_database: Callable[..., str]) -> str:
    """The URL of an empty database that no other test uses."""
    return new_database()


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The URL of a Redis server of this test session, on a free local port, with a password."""
    with _server_folder() as folder:
        port = _free_port()
        settings = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": "", "requirepass": "secret"}
        command = [_find_binary("redis-server"), *(part for name, at in settings.items() for part in (f"--{name}", at))]
        with _run_server(command, folder, lambda: _listens(port)):
            yield f"redis://:secret@127.0.0.1:{port}/0"


@pytest.fixture
def redis_url(redis: str) -> str:
    """The URL of an empty Redis."""
    from redis import Redis

    with Redis.from_url(redis) as client:
        client.flushall()
    return redis


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Builds a folder once for all pytest workers: build_once(name, make). Tests copy it before they change it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def build_under_lock(name: str, make: Callable[[Path], None]) -> Path:
        folder, ready = shared / f"once-{name}", shared / f"once-{name}.ready"
        with (shared / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a worker that was killed
                folder.mkdir()
                with pytest.MonkeyPatch.context() as patch:  # whichever test comes first, and whatever it has set
                    for variable in [name for name in os.environ if name.startswith("REGULARS_")]:
                        patch.delenv(variable)
                    make(folder)
                ready.touch()
        return folder

    return build_under_lock


def _find_binary(name: str) -> str:
    """The path of a server's program; Debian does not put PostgreSQL's on the PATH."""
    program = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if program is None:
        (pytest.fail if SERVERS_REQUIRED else pytest.skip)(f"needs {name}; apt-get install postgresql redis-server")
    return str(program)


def _postgres_user() -> str | None:
    """The user that PostgreSQL runs as: it refuses to run as root, so root starts it as `postgres`."""
    return "postgres" if os.geteuid() == 0 else None


@contextmanager
def _server_folder(owner: str | None = None) -> Iterator[Path]:
    """A temporary folder for a server; pytest's own is readable by the user of the tests only."""
    with tempfile.TemporaryDirectory(prefix="regulars-server-") as folder:
        if owner:
            shutil.chown(folder, owner)
        yield Path(folder)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _accepts_connections(url: str) -> bool:
    """Whether PostgreSQL accepts connections; it listens slightly earlier."""
    import psycopg

    try:
        psycopg.connect(f"{url}/postgres").close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def _run_server(
    command: list[str], folder: Path, ready: Callable[[], bool], *, user: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """Start a server, wait until it is ready, and stop it at the end, or when the test process is killed."""

    def stop_with_tests() -> None:
        ctypes.CDLL(None).prctl(1, stop_signal)  # PR_SET_PDEATHSIG

    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, user=user, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=stop_with_tests if sys.platform == "linux" else None,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while not ready():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start: {(folder / 'server.log').read_text()[-800:]}")
                time.sleep(0.02)
            yield server
        finally:
            server.send_signal(stop_signal)
            server.wait(timeout=20)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Traces are on, and this holds the spans that have ended."""
    exporter = InMemorySpanExporter()
    tracer = tracing.build_tracer(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "get_tracer", lambda: tracer)
    return exporter


@pytest.fixture
def till(tmp_path: Path) -> Callable[..., Path]:
    """Writes sales lines to a CSV file: till(line, line, ...), or other columns with `head`."""

    def export(*rows: tuple[object, ...], head: tuple[str, ...] = LINE) -> Path:
        return write_csv(tmp_path / "till.csv", head, list(rows))

    return export


@pytest.fixture(scope="session")
def small_shop_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of a small grocer, one CSV file per record kind.

    Each customer buys at regular gaps of 2 to 30 days, four in ten stop at some day, and each has favourite products.
    Every month half of the customers receive a coupon for one category by post; who often buys in that category
    is likelier to redeem it.
    """
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("grocer")
    lines: list[tuple[object, ...]] = []
    for number in range(PEOPLE):
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
    people = [(f"c{number:03d}", "张伟" if number % 2 else "Zoë", f"c{number}@example.com") for number in range(PEOPLE)]
    products = [(f"p{n:02d}", f"product {n}", CATEGORIES[n % 4], "food") for n in range(60)]
    write_csv(folder / "customers.csv", ("customer_id", "given_name", "email"), people)
    write_csv(folder / "products.csv", ("product_id", "name", "category", "department"), products)
    write_csv(folder / "transactions.csv", LINE, lines)
    _write_campaigns(folder, lines)
    return folder


def _write_campaigns(folder: Path, lines: list[tuple[object, ...]]) -> None:
    """Write offers, who received and redeemed them, and the consents to post."""
    rng = np.random.default_rng(7)
    offers: list[tuple[object, ...]] = []
    interactions: list[tuple[object, ...]] = []
    basket = Counter((str(who), CATEGORIES[int(str(product)[1:]) % 4]) for _, _, who, product, *_ in lines)
    people = [f"c{number:03d}" for number in range(PEOPLE)]
    for month in range(7):
        campaign, coupon, category = f"month-{month}", f"coupon-{month}", CATEGORIES[month % 4]
        begins = OPENED + timedelta(days=28 * month + 14)
        ends = begins + timedelta(days=28)
        offers.append((coupon, campaign, begins.date(), ends.date(), 1, "amount", "post", "received", category))
        for who in (who for who in people if rng.random() < 0.5):
            interactions.append((f"{campaign}-{who}", who, begins.isoformat(), "post", "received", campaign, ""))
            is_favourite = basket[who, category] > max(basket[who, other] for other in CATEGORIES if other != category)
            used = begins + timedelta(days=int(rng.integers(1, 27)))
            if rng.random() < (0.5 if is_favourite else 0.05) and ends < OPENED + timedelta(days=HISTORY_DAYS):
                interactions.append((f"{coupon}-{who}", who, used.isoformat(), "store", "redeemed", campaign, coupon))
    write_csv(folder / "offers.csv", OFFER, offers)
    write_csv(folder / "interactions.csv", INTERACTION, interactions)
    granted = [(who, "marketing_post", "granted", OPENED.isoformat()) for who in people[::2]]
    write_csv(folder / "consents.csv", ("customer_id", "purpose", "state", "at"), granted)
