"""A whole table as a file: ordered at once, written in the background, complete or not there at all."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from customers.privacy import erasure
from customers.reports import exports
from customers.scores import score_store
from serving.exports import export_jobs, export_runner
from serving.exports.export_scheduler import ExportScheduler


def order(api: Any, table: str = "scores", file_format: str = "parquet", **others: Any) -> dict[str, Any]:
    response = api.post("/v1/exports", {"table": table, "format": file_format, **others}, "analyst")
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/exports/{response.json()['export_id']}"
    return dict(response.json())


def read_state(api: Any, ordered: dict[str, Any]) -> dict[str, Any]:
    return dict(api.read(f"/v1/exports/{ordered['export_id']}", "analyst").json())


def files(api: Any) -> list[str]:
    return sorted(path.name for path in (api.shop.home / "exports").glob("*"))


@pytest.mark.parametrize("file_format", ["parquet", "csv", "ndjson"])
def test_the_file_is_the_whole_table_of_the_last_night(export_api: Any, file_format: str) -> None:
    ordered = order(export_api, file_format=file_format)
    assert (ordered["state"], ordered["location"], ordered["webhook"]) == ("queued", None, None)
    before = export_api.read(f"/v1/exports/{ordered['export_id']}/file", "analyst")
    assert before.status_code == 409
    export_runner.run_jobs(export_api.shop)
    state = read_state(export_api, ordered)
    expected = exports.build_table(export_api.shop, "scores", as_of=score_store.last_finished_as_of(export_api.shop))
    assert (state["state"], state["rows"], state["error"]) == ("done", len(expected), None)
    content = export_api.read(state["location"], "campaign").content
    assert len(content) == state["size_bytes"]
    readers = {
        "parquet": pd.read_parquet,
        "csv": lambda file: pd.read_csv(file, dtype={"customer_id": str}),
        "ndjson": lambda file: pd.read_json(file, lines=True, dtype={"customer_id": str}),
    }
    assert readers[file_format](io.BytesIO(content))["customer_id"].tolist() == expected["customer_id"].tolist()


def test_a_range_of_the_file_can_be_read(export_api: Any) -> None:
    ordered = order(export_api, "recommendations")
    export_runner.run_jobs(export_api.shop)
    path = f"/v1/exports/{ordered['export_id']}/file"
    whole = export_api.read(path, "analyst").content
    key = {"Authorization": f"Bearer {export_api.keys['analyst']}", "Range": "bytes=100-199"}
    part = export_api.client.get(path, headers=key)
    assert (part.status_code, part.content) == (206, whole[100:200])


@pytest.mark.parametrize("role", ["till", "agent"])
def test_other_roles_are_refused(export_api: Any, role: str) -> None:
    ordered = order(export_api)
    assert export_api.post("/v1/exports", {"table": "scores"}, role).status_code == 403
    assert export_api.read(f"/v1/exports/{ordered['export_id']}", role).status_code == 403
    assert export_api.read(f"/v1/exports/{ordered['export_id']}/file", role).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"table": "passwords"},
        {"table": "scores", "format": "xlsx"},
        {"table": "scores", "surprise": 1},
        {"table": "scores", "webhook_url": "http://example.com/hook"},
        {"table": "scores", "webhook_url": "https://user:pass@example.com/hook"},
        {"table": "scores", "webhook_url": "file:///etc/passwd"},
        {},
    ],
)
def test_an_order_that_makes_no_sense_is_refused_and_leaves_no_job(export_api: Any, body: dict[str, Any]) -> None:
    response = export_api.post("/v1/exports", body, "analyst")
    assert response.status_code == 422
    assert "passwords" not in response.text
    assert export_jobs.list_jobs(export_api.shop) == []


@pytest.mark.parametrize("export_id", ["nothing", "..%2F..%2Fshop", "a" * 64])
def test_an_unknown_export_is_not_there(export_api: Any, export_id: str) -> None:
    assert export_api.read(f"/v1/exports/{export_id}", "analyst").status_code == 404


def test_an_order_under_one_idempotency_key_is_carried_out_once(export_api: Any) -> None:
    headers = {"Authorization": f"Bearer {export_api.keys['analyst']}", "Idempotency-Key": "one"}
    ids = {export_api.client.post("/v1/exports", json={"table": "timing"}, headers=headers).json()["export_id"]
           for _ in range(2)}  # fmt: skip
    assert len(ids) == len(export_jobs.list_jobs(export_api.shop)) == 1


def test_too_many_unfinished_exports_are_refused_for_a_while(export_api: Any, monkeypatch: Any) -> None:
    from serving.api import exports as export_endpoints

    monkeypatch.setattr(export_endpoints, "MAX_UNFINISHED", 1)
    order(export_api)
    refused = export_api.post("/v1/exports", {"table": "scores"}, "analyst")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")


def test_a_job_that_was_interrupted_is_begun_again_and_leaves_no_half_file(export_api: Any, monkeypatch: Any) -> None:
    ordered = order(export_api)

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export_runner.exports, "iter_tables", die)
        with pytest.raises(KeyboardInterrupt):
            export_runner.run_jobs(export_api.shop)
    assert (read_state(export_api, ordered)["state"], files(export_api)) == ("running", [])
    export_runner.run_jobs(export_api.shop)
    assert read_state(export_api, ordered)["state"] == "done"
    assert export_jobs.load_job(export_api.shop, ordered["export_id"]).attempts == 2  # type: ignore[union-attr]


def test_a_job_that_is_interrupted_again_and_again_fails_with_a_reason(export_api: Any) -> None:
    job = export_jobs.create_job(export_api.shop, "scores", "csv", as_of=None)
    export_jobs.save_job(export_api.shop, job, state=export_jobs.RUNNING, attempts=export_runner.MAX_ATTEMPTS)
    export_runner.run_jobs(export_api.shop)
    failed = export_jobs.load_job(export_api.shop, job.job_id)
    assert failed is not None
    assert failed.state == "failed"
    assert "interrupted" in str(failed.error)


def test_a_killed_process_leaves_its_job_to_the_next(export_api: Any) -> None:
    ordered, home = order(export_api), export_api.shop.home
    waiting = (
        "import sys, time; from pathlib import Path; from customers.reports import exports\n"
        "from customers.shop import settings; from serving.exports import export_runner\n"
        "def wait(*_, **__):\n    print('begun', flush=True); time.sleep(60)\n"
        "export_runner.exports.iter_tables = wait\n"
        "export_runner.run_jobs(settings.open_shop(Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", waiting, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    export_runner.run_jobs(export_api.shop)  # another process holds the job
    assert read_state(export_api, ordered)["state"] == "running"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    scheduler = ExportScheduler(export_api.shop)
    for _ in range(300):
        scheduler.check()
        if read_state(export_api, ordered)["state"] == "done":
            break
        time.sleep(0.1)
    assert read_state(export_api, ordered)["state"] == "done"
    assert [name.startswith("scores-") for name in files(export_api)] == [True]


def test_a_customer_who_is_erased_while_the_file_is_written_is_not_in_it(export_api: Any, monkeypatch: Any) -> None:
    ordered = order(export_api, "scores", "csv")
    iter_tables, erased = exports.iter_tables, list[str]()

    def erase_afterwards(shop: Any, name: str, **options: Any) -> Any:
        yield from iter_tables(shop, name, **options)
        if not erased:
            erased.append("c001")
            assert erasure.erase_customer(shop, "c001") is not None

    monkeypatch.setattr(export_runner.exports, "iter_tables", erase_afterwards)
    export_runner.run_jobs(export_api.shop)
    state = read_state(export_api, ordered)
    assert (erased, state["state"]) == (["c001"], "done")
    ids = pd.read_csv(export_api.shop.home / "exports" / files(export_api)[0], dtype=str)["customer_id"]
    assert len(ids) == state["rows"]
    assert "c001" not in set(ids)


def test_a_customer_who_is_erased_later_goes_from_the_file(export_api: Any) -> None:
    order(export_api, "scores", "csv")
    export_runner.run_jobs(export_api.shop)
    path = export_api.shop.home / "exports" / files(export_api)[0]
    assert "c001" in set(pd.read_csv(path, dtype=str)["customer_id"])
    erasure.erase_customer(export_api.shop, "c001")
    assert "c001" not in set(pd.read_csv(path, dtype=str)["customer_id"])


def test_an_old_job_and_its_file_are_deleted(export_api: Any) -> None:
    ordered = order(export_api)
    export_runner.run_jobs(export_api.shop)
    job = export_jobs.load_job(export_api.shop, ordered["export_id"])
    assert job is not None
    assert job.finished_at is not None
    export_jobs.delete_old_jobs(export_api.shop, job.finished_at + timedelta(days=export_jobs.RETENTION_DAYS - 1))
    assert files(export_api)
    export_jobs.delete_old_jobs(export_api.shop, job.finished_at + timedelta(days=export_jobs.RETENTION_DAYS + 1))
    assert files(export_api) == []
    assert export_api.read(f"/v1/exports/{ordered['export_id']}", "analyst").status_code == 404


def test_the_state_names_no_customer(export_api: Any) -> None:
    ordered = order(export_api, "customers", "ndjson")
    export_runner.run_jobs(export_api.shop)
    assert "c001" not in json.dumps(read_state(export_api, ordered))


def finished_job(shop: Any, number: int, size_bytes: int) -> export_jobs.ExportJob:
    """A job that has finished, with its file; later ones have higher numbers."""
    job = export_jobs.create_job(shop, "scores", "csv", as_of=None)
    at = job.created_at + timedelta(seconds=number)
    job = export_jobs.save_job(shop, job, created_at=at, state=export_jobs.DONE, finished_at=at, size_bytes=size_bytes)
    export_jobs.export_path(shop, job).parent.mkdir(exist_ok=True)
    export_jobs.export_path(shop, job).write_text("x")
    return job


def test_the_oldest_files_go_where_there_is_too_much(export_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = export_api.shop
    jobs = [finished_job(shop, number, 100) for number in range(4)]
    waiting = export_jobs.create_job(shop, "scores", "csv", as_of=None)
    monkeypatch.setattr(export_jobs, "MAX_BYTES", 250)
    export_jobs.delete_old_jobs(shop, jobs[-1].created_at)
    assert [job.job_id for job in export_jobs.list_jobs(shop) if job.is_finished] == [job.job_id for job in jobs[2:]]
    assert files(export_api) == sorted(job.file_name for job in jobs[2:])
    monkeypatch.setattr(export_jobs, "MAX_BYTES", 10)
    monkeypatch.setattr(export_jobs, "MAX_FINISHED", 1)
    export_jobs.delete_old_jobs(shop, jobs[-1].created_at)
    assert files(export_api) == [jobs[-1].file_name], "the newest stays, whatever its size"
    assert export_jobs.load_job(shop, waiting.job_id) is not None


def test_only_what_has_changed_is_read_again(export_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = export_api.shop
    jobs = [export_jobs.create_job(shop, "scores", "csv", as_of=None) for _ in range(3)]
    assert export_jobs.list_jobs(shop) == jobs
    read: list[str] = []
    load = export_jobs._read_job
    monkeypatch.setattr(export_jobs, "_read_job", lambda path: (read.append(path.stem), load(path))[1])
    assert export_jobs.list_jobs(shop) == jobs
    assert read == []
    changed = export_jobs.save_job(shop, jobs[1], state=export_jobs.RUNNING)
    assert export_jobs.list_jobs(shop) == [jobs[0], changed, jobs[2]]
    assert read == [changed.job_id]
