"""Two workers go on answering while their database is stopped or hangs, and while Redis is empty."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from customers.database import engine
from customers.security import api_keys
from customers.shop.settings import Shop
from pipelines.nightly import run as nightly_run

pytestmark = pytest.mark.acceptance

QUESTIONS = ("recommendations", "offers", "churn", "next-purchase", "value", "restock")
CUSTOMERS = [f"c{number:03d}" for number in range(1, 41)]
WORKERS = 2
UNKNOWN_KEY = {"Authorization": "Bearer rg_000000000000_x"}
#: Of an answer once the outage has been noticed, and until it has been.
ANSWER_SECONDS, NOTICE_SECONDS = 1.0, 6.0
BACK_SECONDS = 10.0


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


@contextmanager
def _server(shop: Shop) -> Iterator[httpx.Client]:
    """A server of this home with two workers; a client with an admin's key, and a new connection for each request."""
    from serving import server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = server.build_environment(shop, workers=WORKERS)
    with (shop.home / "server.log").open("wb") as output:
        process = subprocess.Popen(server.build_command(shop, port=port), env=environment, stdout=output, stderr=output)
    headers = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}", "Connection": "close"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            _wait_until(lambda: _is_followed_by_all(client, process.pid), 120)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _is_followed_by_all(client: httpx.Client, pid: int) -> bool:
    """Whether both workers answer, and have verified the key and read what they need in an outage."""
    try:
        statuses = {client.get("/v1/customers/c001/churn").status_code for _ in range(60)}
    except httpx.HTTPError:
        return False
    if statuses != {200}:
        return False
    ages = [time.time() - psutil.Process(each.pid).create_time() for each in psutil.Process(pid).children()]
    return len(ages) == WORKERS and min(ages) > 45


def _wait_until(is_done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def _answers(client: httpx.Client, names: Sequence[str] = CUSTOMERS) -> dict[str, Any]:
    """The results of all questions about many customers at once, and about one."""
    answers = {}
    for question in QUESTIONS:
        bulk = client.post(f"/v1/{question}", json={"customer_ids": list(names)})
        single = client.get(f"/v1/customers/{names[0]}/{question}")
        assert (bulk.status_code, single.status_code) == (200, 200), (question, bulk.text[:300], single.text[:300])
        answers[question] = bulk.json()["results"], single.json()["results"]
    return answers


def _without_times(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**result, "features_as_of": None} for result in results]


def _fallbacks(response: httpx.Response) -> list[bool]:
    return [result["fallback"] for result in response.json()["results"]]


def _timed(request: Callable[[], httpx.Response], seconds: float = ANSWER_SECONDS) -> httpx.Response:
    began_at = time.monotonic()
    response = request()
    assert time.monotonic() < began_at + seconds, response.text[:300]
    return response


def _check_outage(client: httpx.Client, expected: dict[str, Any]) -> None:
    """Ask everything of both workers while the database is away."""
    noticed_by = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < noticed_by:
        _timed(lambda: client.get("/v1/customers/c001/churn"), NOTICE_SECONDS)
    for _ in range(5):  # whichever worker accepts the connection
        for question in QUESTIONS:
            bulk = _timed(lambda question=question: client.post(f"/v1/{question}", json={"customer_ids": CUSTOMERS}))
            single = _timed(lambda question=question: client.get(f"/v1/customers/{CUSTOMERS[0]}/{question}"))
            for response, results in zip((bulk, single), expected[question], strict=True):
                assert response.status_code == 200, response.text[:300]
                assert "database does not answer" in response.json()["degraded"]["reason"]
                assert response.json()["results"] == results
        refused = _timed(lambda: client.post("/v1/transactions", json=_sale("away", "c005")))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert _timed(lambda: client.get("/v1/customers/c001/churn", headers=UNKNOWN_KEY)).status_code == 503
        ready = _timed(lambda: client.get("/readyz"))
        assert any("database does not answer" in reason for reason in ready.json()["reasons"])


def _check_return(client: httpx.Client, expected: dict[str, Any]) -> None:
    """The same answers as before, by themselves."""

    def is_back() -> bool:
        return all("degraded" not in client.get("/v1/customers/c001/churn").json() for _ in range(10))

    _wait_until(is_back, BACK_SECONDS)
    assert _answers(client) == expected
    assert not any("database" in reason for reason in client.get("/readyz").json()["reasons"])


def _sale(order_id: str, customer_id: str) -> dict[str, Any]:
    return {"order_id": order_id, "line_id": "1", "customer_id": customer_id, "product_id": "p04",
            "sold_at": "2025-07-24T18:00:00", "quantity": 1, "amount": "5.00"}  # fmt: skip


@pytest.fixture(scope="module")
def on_servers(
    new_small_shop: Callable[[Path], Shop],
    stoppable_postgres: SimpleNamespace,
    redis: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SimpleNamespace]:
    """The small grocer after a night on PostgreSQL and Redis, and a server of two workers."""
    home = tmp_path_factory.mktemp("outages") / "home"
    redis_url = f"{redis.rpartition('/')[0]}/7"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_DATABASE_URL", stoppable_postgres.url)
        patch.setenv("REGULARS_ONLINE_STORE", redis_url)
        shop = new_small_shop(home)
        nightly_run.run_nightly(shop, progress=ignore_progress)
        with _server(shop) as client:
            yield SimpleNamespace(shop=shop, client=client, postgres=stoppable_postgres, redis_url=redis_url)
        engine.get_engine(shop).dispose()


def test_a_postgres_that_hangs(on_servers: SimpleNamespace) -> None:
    expected = _answers(on_servers.client)
    with on_servers.postgres.frozen():
        _check_outage(on_servers.client, expected)
    _check_return(on_servers.client, expected)


def test_a_postgres_that_is_stopped_and_started_again(on_servers: SimpleNamespace) -> None:
    expected = _answers(on_servers.client)
    on_servers.postgres.stop()
    _check_outage(on_servers.client, expected)
    on_servers.postgres.start()
    _check_return(on_servers.client, expected)
    sold = on_servers.client.post("/v1/transactions", json=_sale("after", "c006"))
    assert sold.json()["inserted"] == 1


def test_redis_is_emptied_while_questions_are_answered(on_servers: SimpleNamespace) -> None:
    from redis import Redis

    client = on_servers.client
    expected = _answers(client, CUSTOMERS[2:])
    before = client.get("/v1/customers/c002/churn").json()["results"][0]
    question = {"customer_ids": CUSTOMERS[2:], "max_per_category": 50}
    were_fallback = _fallbacks(client.post("/v1/recommendations", json=question))
    with Redis.from_url(on_servers.redis_url) as store:
        store.flushall()
    assert client.post("/v1/transactions", json=_sale("flushed", "c002")).json()["inserted"] == 1

    def is_refreshed() -> bool:
        [after] = client.get("/v1/customers/c002/churn").json()["results"]
        times = [each["features_as_of"] and datetime.fromisoformat(each["features_as_of"]) for each in (before, after)]
        return all(times) and times[1] > times[0]

    _wait_until(is_refreshed, 20)
    [after] = client.get("/v1/customers/c002/churn").json()["results"]
    assert not after["fallback"]
    assert after["probability"] != before["probability"]
    unchanged = [name for name in CUSTOMERS[2:] if name != "c006"]  # who has bought since the night
    now = _answers(client, unchanged)
    for path, (results, _) in expected.items():
        assert now[path][0] == [result for result in results if result["customer_id"] in unchanged]
    # A question that is not looked up reads the features of customers of whom Redis has none, or has them again.

    def is_filled() -> bool:
        computed = client.post("/v1/recommendations", json=question)
        assert computed.status_code == 200
        assert _fallbacks(computed) == were_fallback
        return "degraded" not in computed.json()

    _wait_until(is_filled, 90)
    assert not any("online store" in reason for reason in client.get("/readyz").json()["reasons"])
    again = _answers(client, CUSTOMERS[2:])
    for path, (results, _) in expected.items():  # who has bought was refreshed once more, a little later
        assert _without_times(again[path][0]) == _without_times(results)
    [refreshed] = client.get("/v1/customers/c002/churn").json()["results"]
    assert refreshed["probability"] == after["probability"]
