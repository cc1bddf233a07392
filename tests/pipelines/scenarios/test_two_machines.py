"""Two servers of one shop, each with a home of its own: what they share is PostgreSQL, Redis and an MLflow server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from customers.database import engine
from customers.scores import promotion_log
from customers.security import api_keys
from customers.shop import settings
from customers.shop.settings import Shop
from models.registry import mlflow_registry
from pipelines import replica
from pipelines.nightly import run as nightly_run
from training import promotion

pytestmark = pytest.mark.acceptance

QUESTIONS = ("recommendations", "offers", "churn", "next-purchase", "value", "restock")
CUSTOMERS = [f"c{number:03d}" for number in range(1, 41)]


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def machines(
    new_small_shop: Callable[[Path], Shop],
    new_database: Callable[..., str],
    redis: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SimpleNamespace]:
    """The small grocer after a night on the first machine, and a server on each: clients `first` and `second`."""
    folder = tmp_path_factory.mktemp("machines")
    with pytest.MonkeyPatch.context() as patch, _mlflow_server(folder / "mlflow") as registry:
        patch.setenv("REGULARS_DATABASE_URL", new_database())
        patch.setenv("REGULARS_ONLINE_STORE", f"{redis.rpartition('/')[0]}/6")
        patch.setenv("MLFLOW_TRACKING_URI", registry)
        shop = new_small_shop(folder / "first")
        nightly_run.run_nightly(shop, progress=ignore_progress)
        (folder / "second").mkdir()
        shutil.copy(shop.home / "regulars.toml", folder / "second")
        shutil.copytree(shop.home / "keys", folder / "second" / "keys")
        second_shop = settings.open_shop(folder / "second")
        headers = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}"}
        with _server(shop, headers) as first, _server(second_shop, headers) as second:
            yield SimpleNamespace(shop=shop, second_shop=second_shop, first=first, second=second, registry=registry)
        engine.get_engine(shop).dispose()


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_machines_give_the_same_answers(machines: SimpleNamespace, question: str) -> None:
    body = {"customer_ids": [*CUSTOMERS, "nobody"]}
    first, second = (client.post(f"/v1/{question}", json=body) for client in (machines.first, machines.second))
    assert first.status_code == second.status_code == 200, second.text
    assert second.json()["results"] == first.json()["results"]
    assert "degraded" not in second.json()


@pytest.mark.parametrize("path", ["/v1/at-risk?limit=20", "/v1/customers/c001/scores"])
def test_both_machines_show_the_same_lists(machines: SimpleNamespace, path: str) -> None:
    first, second = (client.get(path) for client in (machines.first, machines.second))
    assert first.status_code == second.status_code == 200, second.text
    assert second.json() == first.json()


@pytest.mark.parametrize("path", ["/v1/similar", "/v1/audience"])
def test_both_machines_answer_the_same_about_products(machines: SimpleNamespace, path: str) -> None:
    first, second = (client.post(path, json={"product_ids": ["p01"]}) for client in (machines.first, machines.second))
    assert first.status_code == second.status_code == 200, second.text
    names = [name for name in first.json() if name not in ("request_id", "attribution_token", "took_ms")]
    assert {name: second.json()[name] for name in names} == {name: first.json()[name] for name in names}


def test_a_sale_on_one_machine_changes_the_answers_of_the_other(machines: SimpleNamespace) -> None:
    path = "/v1/customers/c002/churn"
    before = machines.first.get(path).json()["results"]
    line = {"order_id": "late", "line_id": "1", "customer_id": "c002", "product_id": "p04",
            "sold_at": "2025-07-24T18:00:00", "quantity": 1, "amount": "5.00"}  # fmt: skip
    assert machines.second.post("/v1/transactions", json=line).json()["inserted"] == 1
    _wait_until(lambda: machines.first.get(path).json()["results"] != before)
    assert machines.first.get(path).json()["results"] == machines.second.get(path).json()["results"]


def test_who_withdraws_on_one_machine_is_left_alone_by_the_other(machines: SimpleNamespace) -> None:
    statement = {"customer_id": "c003", "purpose": "profiling", "state": "revoked", "at": "2025-07-24T18:00:00"}
    assert machines.second.post("/v1/consents", json=statement).json()["inserted"] == 1
    for client in (machines.first, machines.second):
        assert client.get("/v1/customers/c003/churn").json()["results"][0]["fallback"]


def test_a_promotion_on_one_machine_reaches_the_other(machines: SimpleNamespace, tmp_path: Path) -> None:
    shop, name = machines.shop, "churn"
    version = promotion_log.load_champion_versions(shop)[name]
    registered = mlflow_registry.get_version(machines.registry, name, version)
    bundle_folder = mlflow_registry.download_bundle(machines.registry, name, version, tmp_path / "bundle")
    newer, _ = mlflow_registry.register_version(
        machines.registry, name, bundle_folder, params=registered.params, tags=registered.tags
    )
    promotion.promote(shop, name, version=newer, why="the same model again")
    for client in (machines.first, machines.second):
        _wait_until(lambda client=client: _churn_version(client) == newer)


def _churn_version(client: httpx.Client) -> str:
    models = client.get("/v1/customers/c001/churn").json()["models"]
    return next(model["version"] for model in models if model["name"] == "churn")


def _wait_until(is_done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@contextmanager
def _mlflow_server(folder: Path) -> Iterator[str]:
    """An MLflow server with its database and artifacts in a folder; its address."""
    folder.mkdir()
    port = _free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until(lambda: _status(f"{address}/health") == 200, 120)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _server(shop: Shop, headers: dict[str, str]) -> Iterator[httpx.Client]:
    """A server of this home as `regulars serve` starts it; a client with an admin's key."""
    from serving import server

    command = server.build_command(shop, port=(port := _free_port()), companion=replica.watch_command(shop))
    with (shop.home / "server.log").open("wb") as output:
        process = subprocess.Popen(command, env=server.build_environment(shop), stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until(lambda: _has_every_model(address), 120)
        with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _has_every_model(address: str) -> bool:
    try:
        return len(httpx.get(f"{address}/readyz", timeout=10).json().get("models", {})) == len(QUESTIONS)
    except (httpx.HTTPError, ValueError):
        return False


def _status(address: str) -> int:
    try:
        return httpx.get(address, timeout=5).status_code
    except httpx.HTTPError:
        return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
