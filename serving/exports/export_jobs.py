"""Durable export jobs: one JSON file for each in the home, replaced in one step at every change of its state."""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from customers.shop import durable_files
from customers.shop.settings import Shop

#: A job is queued, then running, then done or failed; its webhook is pending until it is delivered or has failed.
QUEUED, RUNNING, DONE, FAILED = STATES = ("queued", "running", "done", "failed")
PENDING, DELIVERED = "pending", "delivered"
#: Files and jobs are deleted so long after they were finished.
RETENTION_DAYS = 7
_TIMES = ("created_at", "started_at", "finished_at", "as_of", "webhook_after")


@dataclass(frozen=True)
class ExportJob:
    """One export: the table, its format, the moment of the scores, and what has become of it.

    `attempts` counts how often it was begun. `error` says why it failed. `webhook_after` is the time of the next call.
    """

    job_id: str
    table: str
    file_format: str
    created_at: datetime
    as_of: datetime | None
    state: str = QUEUED
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rows: int | None = None
    size_bytes: int | None = None
    error: str | None = None
    webhook_url: str | None = None
    webhook_state: str | None = None
    webhook_attempts: int = 0
    webhook_after: datetime | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the file is there, or will not come."""
        return self.state in (DONE, FAILED)

    @property
    def file_name(self) -> str:
        """The name of the file in the folder of exports."""
        return f"{self.table}-{self.job_id}.{self.file_format}"


def create_job(
    shop: Shop, table: str, file_format: str, *, as_of: datetime | None, webhook_url: str | None = None
) -> ExportJob:
    """A new queued job, on the disk before this returns."""
    job = ExportJob(
        job_id=secrets.token_hex(12),
        table=table,
        file_format=file_format,
        created_at=datetime.now(UTC),
        as_of=as_of,
        webhook_url=webhook_url,
        webhook_state=PENDING if webhook_url else None,
    )
    return save_job(shop, job)


def save_job(shop: Shop, job: ExportJob, **changes: Any) -> ExportJob:
    """Store the job with these changes; returns it as it is stored."""
    changed = replace(job, **changes)
    fields = {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(changed).items()
    }
    _folder(shop).mkdir(parents=True, exist_ok=True)
    durable_files.write_atomically(_job_path(shop, changed.job_id), json.dumps(fields))
    return changed


def load_job(shop: Shop, job_id: str) -> ExportJob | None:
    """The job of this id; None where there is none, or any more."""
    if not (job_id.isascii() and job_id.isalnum()):
        return None
    try:
        fields = json.loads(_job_path(shop, job_id).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    times = {name: datetime.fromisoformat(fields[name]) for name in _TIMES if fields[name]}
    return ExportJob(**(fields | times))


def list_jobs(shop: Shop) -> list[ExportJob]:
    """All jobs, the oldest first."""
    jobs = [job for path in _folder(shop).glob("*.json") if (job := load_job(shop, path.stem)) is not None]
    return sorted(jobs, key=lambda job: (job.created_at, job.job_id))


def delete_old_jobs(shop: Shop, now: datetime) -> None:
    """Delete the jobs that were finished more than RETENTION_DAYS ago, with their files."""
    for job in list_jobs(shop):
        if job.finished_at is not None and job.finished_at < now - timedelta(days=RETENTION_DAYS):
            export_path(shop, job).unlink(missing_ok=True)
            _job_path(shop, job.job_id).unlink(missing_ok=True)


def export_path(shop: Shop, job: ExportJob) -> Path:
    """Where the file of a finished job lies."""
    return shop.home / "exports" / job.file_name


def partial_path(shop: Shop, job: ExportJob) -> Path:
    """Where the file of a running job is written: not among the exports."""
    return _folder(shop) / f"{job.file_name}.partial"


@contextmanager
def lock(shop: Shop, name: str) -> Iterator[bool]:
    """Hold the lock of this name in the home; False where another process holds it. A killed process releases it."""
    _folder(shop).mkdir(parents=True, exist_ok=True)
    with (_folder(shop) / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _folder(shop: Shop) -> Path:
    return shop.home / "export-jobs"


def _job_path(shop: Shop, job_id: str) -> Path:
    return _folder(shop) / f"{job_id}.json"
