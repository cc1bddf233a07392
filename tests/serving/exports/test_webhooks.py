"""A finished export is reported: signed, again after a failure, and only to addresses that may be called."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from serving.exports import export_jobs, export_runner, webhook_addresses, webhooks
from serving.exports.export_jobs import ExportJob


class Receiver:
    """A receiver on this machine that answers with the next of its statuses."""

    def __init__(self, statuses: list[int]) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class _Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(statuses.pop(0))
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?shop=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[Receiver]:
    created = Receiver(list(request.param))
    monkeypatch.setenv(webhook_addresses.HOSTS_VARIABLE, f"example.org, 127.0.0.1:{created.server.server_port}")
    yield created
    created.server.shutdown()
    created.server.server_close()


def finished_job(api: Any, url: str) -> ExportJob:
    response = api.post("/v1/exports", {"table": "scores", "format": "csv", "webhook_url": url}, "campaign")
    assert response.status_code == 202, response.text
    export_runner.run_jobs(api.shop)
    return load(api, response.json()["export_id"])


def load(api: Any, job_id: str) -> ExportJob:
    job = export_jobs.load_job(api.shop, job_id)
    assert job is not None
    return job


@pytest.mark.parametrize("receiver", [(500, 200)], indirect=True)
def test_a_receiver_that_fails_is_called_again_later_and_then_no_more(export_api: Any, receiver: Receiver) -> None:
    job, now = finished_job(export_api, receiver.url), datetime.now(UTC)
    webhooks.deliver_due(export_api.shop, now)
    failed_once = load(export_api, job.job_id)
    assert (failed_once.webhook_state, failed_once.webhook_attempts) == ("pending", 1)
    webhooks.deliver_due(export_api.shop, now)  # not due yet
    assert len(receiver.calls) == 1
    webhooks.deliver_due(export_api.shop, now + timedelta(seconds=webhooks.RETRY_SECONDS[0]))
    webhooks.deliver_due(export_api.shop, now + timedelta(days=1))
    assert len(receiver.calls) == 2
    state = export_api.read(f"/v1/exports/{job.job_id}", "campaign").json()
    assert state["webhook"] == {"state": "delivered", "attempts": 2}
    first, second = (headers["webhook-id"] for _, headers, _ in receiver.calls)
    assert first == second == f"export_{job.job_id}"


@pytest.mark.parametrize("receiver", [(200,)], indirect=True)
def test_a_call_is_signed_and_names_nobody(export_api: Any, receiver: Receiver) -> None:
    job = finished_job(export_api, receiver.url)
    webhooks.deliver_due(export_api.shop, datetime.now(UTC))
    ((path, headers, body),) = receiver.calls
    assert path == "/hook?shop=1"
    secret = base64.b64decode(webhooks.signing_secret(export_api.shop).removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    document = json.loads(body)
    assert document["type"] == "export.done"
    assert document["data"]["location"] == f"/v1/exports/{job.job_id}/file"
    assert document["data"]["rows"] == job.rows
    assert "c001" not in body.decode()


@pytest.mark.parametrize("receiver", [(302,) * 20], indirect=True)
def test_a_redirect_is_a_failure_and_after_the_last_one_it_is_given_up(export_api: Any, receiver: Receiver) -> None:
    job, now = finished_job(export_api, receiver.url), datetime.now(UTC)
    for day in range(20):
        webhooks.deliver_due(export_api.shop, now + timedelta(days=day))
    assert len(receiver.calls) == len(webhooks.RETRY_SECONDS) + 1
    assert load(export_api, job.job_id).webhook_state == "failed"


@pytest.mark.parametrize("receiver", [()], indirect=True)
def test_a_host_that_is_no_longer_listed_is_not_called(
    export_api: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished_job(export_api, receiver.url)
    monkeypatch.delenv(webhook_addresses.HOSTS_VARIABLE)
    webhooks.deliver_due(export_api.shop, datetime.now(UTC))
    assert receiver.calls == []
    assert load(export_api, job.job_id).webhook_attempts == 1


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.8", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_addresses_behind_the_firewall_are_not_called(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(webhook_addresses.HOSTS_VARIABLE, raising=False)
    webhook_addresses.check_url(f"https://{host}/")  # only its addresses tell
    with pytest.raises(webhook_addresses.WebhookRefused, match="not public"):
        webhook_addresses.connect(f"https://{host}/")


def test_a_job_that_failed_is_reported_too(export_api: Any) -> None:
    job = export_jobs.create_job(export_api.shop, "scores", "csv", as_of=None, webhook_url="https://example.com/")
    failed = export_jobs.save_job(export_api.shop, job, state=export_jobs.FAILED, error="the disk is full")
    document = json.loads(webhooks.build_body(failed))
    assert (document["type"], document["data"]["location"]) == ("export.failed", None)
    assert document["data"]["error"] == "the disk is full"


@pytest.mark.parametrize("url", ["https://a..b/x", "https://[bad/x", f"https://{'a' * 64}.org/x", "https://h:99999/"])
def test_an_address_that_cannot_be_one_is_refused_at_once(export_api: Any, url: str) -> None:
    response = export_api.post("/v1/exports", {"table": "scores", "format": "csv", "webhook_url": url}, "campaign")
    assert response.status_code == 422, response.text


@pytest.mark.parametrize(
    "address", ["64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "fec0::1", "ff02::1", "10.1.2.3", "224.0.0.1"]
)
def test_an_address_that_stands_for_one_inside_is_not_public(address: str) -> None:
    assert not webhook_addresses._is_public(address)


def test_addresses_of_the_internet_are_public() -> None:
    assert all(map(webhook_addresses._is_public, ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]))
