"""The server as a process: it listens on a port, exposes no customer in metrics or logs, and stops on SIGTERM."""

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
from typing import Any

import httpx
import pytest

from customers.shop.settings import Shop

pytestmark = pytest.mark.acceptance


@contextmanager
def run_server(
    trained_home: Path, folder: Path, command: Callable[[Shop, int], list[str]], **settings: str
) -> Iterator[Any]:
    """A server over a copy of the home, started in an empty folder: yields a client with a key, process and folder."""
    from customers.security import api_keys
    from customers.shop import settings as shop_settings
    from serving import server as serving_server

    shutil.copytree(trained_home, folder / "home")
    (folder / "empty").mkdir()
    shop, port, log = shop_settings.open_shop(folder / "home"), _free_port(), (folder / "log.txt").open("wb")
    process = subprocess.Popen(
        command(shop, port),
        env=serving_server.build_environment(shop) | settings,
        cwd=folder / "empty",
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        headers = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            _wait_until_ready(client, process, folder / "log.txt")
            yield client, process, folder
    finally:
        _stop(process)
        log.close()


@pytest.fixture(scope="module")
def server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The server as `regulars serve` starts it."""
    from serving import server as serving_server

    folder = tmp_path_factory.mktemp("server")
    with run_server(trained_home, folder, lambda shop, port: serving_server.build_command(shop, port=port)) as started:
        yield started


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    pytest.fail(log.read_text())


def test_the_server_answers_counts_requests_and_stops(server: Any) -> None:
    """One start for all checks, since a start takes seconds."""
    client, process, folder = server
    for number in range(20):
        assert client.post("/v1/churn", json={"customer_ids": [f"c{number:03d}"]}).status_code == 200
        assert client.post("/v1/churn", json={"customer_ids": ["canary", 7]}).status_code == 422
        assert client.get("/v1/customers/canary/churn").status_code == 200
        assert client.get("/canary").status_code == 404

    page = client.get("/metrics").text
    assert 'regulars_requests_total{method="POST",route="/v1/churn",status="200"} 20.0' in page
    assert 'regulars_requests_total{method="POST",route="/v1/churn",status="422"} 20.0' in page
    assert 'regulars_requests_total{method="GET",route="unmatched",status="404"} 20.0' in page
    assert list((folder / "home" / "bentoml" / "prometheus_multiproc_dir").glob("counter_*.db"))
    assert "canary" not in page
    assert not _has_loaded(process.pid, "libtorch")

    assert client.get("/v1/customers/c000/scores").json()["scores"]["churn"]["version"] == "1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    with pytest.raises(httpx.TransportError):
        client.get("/livez")
    assert "canary" not in (folder / "log.txt").read_text()


def test_a_built_bento_answers_from_an_empty_folder(trained_home: Path, tmp_path: Path) -> None:
    """Built with the settings in pyproject, then served by its name, as on another machine."""
    repository = Path(__file__).parents[2]
    bento = [sys.executable, "-m", "bentoml"]
    settings = {"BENTOML_HOME": str(tmp_path / "bentoml"), "PYTHONPATH": ""}
    build = [*bento, "build", str(repository), "--output", "tag"]
    subprocess.run(build, env=os.environ | settings, check=True, capture_output=True, timeout=120)

    def command(shop: Shop, port: int) -> list[str]:
        return [*bento, "serve", "regulars:latest", "--port", str(port)]

    with run_server(trained_home, tmp_path, command, **settings) as (client, _, _):
        for question in ("recommendations", "offers", "churn", "next-purchase", "value", "restock"):
            answer = client.post(f"/v1/{question}", json={"customer_ids": ["c000", "canary"]})
            assert [result["known"] for result in answer.json()["results"]] == [True, False]
            assert client.get(f"/v1/customers/c000/{question}").status_code == 200
        for page in ("/v1/customers/c000", "/v1/customers/c000/scores", "/openapi.json", "/metrics"):
            assert client.get(page).status_code == 200


def _has_loaded(pid: int, library: str) -> bool:
    """Whether a process or one of its children has mapped a library; False where there is no /proc."""
    import psutil

    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    map_paths = [Path(f"/proc/{each.pid}/maps") for each in processes]
    return any(library in path.read_text() for path in map_paths if path.exists())


def test_metrics_add_up_over_worker_processes(tmp_path: Path) -> None:
    """Two processes count one request each; a third process that counted none reports two."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    count = "from serving.http import prometheus; prometheus.count_request('/v1/churn', 'POST', 200, 0.01)"
    show = "from serving.http import prometheus; print(prometheus.render_metrics().body.decode())"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", count], env=env, check=True)
    page = subprocess.run([sys.executable, "-c", show], env=env, check=True, capture_output=True, text=True).stdout
    assert 'regulars_requests_total{method="POST",route="/v1/churn",status="200"} 2.0' in page
    assert 'regulars_request_seconds_count{route="/v1/churn"} 2.0' in page


def test_two_homes_have_separate_environments(tmp_path: Path) -> None:
    from customers import setup
    from serving import server as serving_server

    first, second = setup.init_home(tmp_path / "here"), setup.init_home(tmp_path / "there")
    first_environment, second_environment = (
        serving_server.build_environment(first),
        serving_server.build_environment(second, workers=3),
    )
    assert first_environment["REGULARS_HOME"] != second_environment["REGULARS_HOME"]
    assert first_environment["BENTOML_HOME"].startswith(str(first.home))
    assert second_environment["REGULARS_WORKERS"] == "3"
    assert serving_server.build_command(first, port=3001)[-6:] == [
        "--working-dir", str(first.home), "--host", "127.0.0.1", "--port", "3001"
    ]  # fmt: skip
