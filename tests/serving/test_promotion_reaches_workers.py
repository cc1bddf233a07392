"""A promotion and a rollback reach every worker within five seconds, and no request is dropped meanwhile."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.acceptance

WORKERS = 2


@pytest.fixture
def served_home(trained_home: Path, tmp_path: Path) -> Any:
    """A server of two workers over a copy of the home: home, process and headers."""
    import subprocess

    from customers.security import api_keys
    from customers.shop import settings
    from serving import server

    home = Path(shutil.copytree(trained_home, tmp_path / "home"))
    shop = settings.open_shop(home)
    with server.listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    environment = server.build_environment(shop, workers=WORKERS)
    process = subprocess.Popen(server.build_command(shop, port=port), env=environment)
    headers = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}"}
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
    try:
        deadline = time.monotonic() + 120
        while len(answering_workers(process.pid, port)) < WORKERS:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                client.get("/readyz")
            except httpx.TransportError:
                time.sleep(0.1)
        yield home, client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


def answering_workers(pid: int, port: int) -> set[int]:
    """Workers that have opened the shop's database: they are about to answer, or do."""
    workers = psutil.Process(pid).children()
    return {each.pid for each in workers if any(file.path.endswith("shop.db") for file in each.open_files())}


def publish(home: Path, version: str) -> None:
    """Publish the present churn model under a version, as promotion and rollback do."""
    from models.registry import bundle

    folder = home / "work" / f"again-{version}"
    if not folder.exists():
        shutil.copytree(home / "work" / "churn-1", folder)
        manifest = json.loads((folder / bundle.MANIFEST).read_text())
        if version != "1":
            manifest["facts"]["number"] = version
        (folder / bundle.MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    bundle.publish(folder if version != "1" else home / "work" / "churn-1", home / "champions", "churn", version)


def test_promotion_and_rollback_reach_all_workers_without_a_dropped_request(served_home: Any) -> None:
    home, client = served_home
    answers: list[tuple[float, int, str]] = []
    is_done = threading.Event()

    def request() -> None:
        while not is_done.is_set():
            # A connection of its own each time: any worker may accept it.
            with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as fresh:
                response = fresh.get("/v1/customers/c001/churn")
                answers.append((time.monotonic(), response.status_code, response.json()["models"][0]["version"]))

    clients = [threading.Thread(target=request) for _ in range(3)]
    for each in clients:
        each.start()
    try:
        time.sleep(3)
        for version in ("2", "1"):
            publish(home, version)
            published_at = time.monotonic()
            time.sleep(8)
            late = {answered for at, _, answered in answers if at > published_at + 5}
            assert late == {version}
    finally:
        is_done.set()
        for each in clients:
            each.join(60)
    assert {status for _, status, _ in answers} == {200}
    assert {version for _, _, version in answers} == {"1", "2"}
