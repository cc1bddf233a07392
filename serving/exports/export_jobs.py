"""Durable export jobs: one JSON file for each in the home, replaced in one step at every change of its state."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from customers.shop import durable_files
from customers.shop.durable_files import FileFingerprint
from customers.shop.settings import Shop

#: A job is queued, then running, then done or failed; its webhook is pending until it is delivered or has failed.
QUEUED, RUNNING, DONE, FAILED = STATES = ("queued", "running", "done", "failed")
PENDING, DELIVERED = "pending", "delivered"
#: Files and jobs are deleted so long after they were finished.
RETENTION_DAYS = 7
#: The oldest are deleted earlier where there are more finished jobs, or where their files are larger in all.
MAX_FINISHED, MAX_BYTES = 1_000, 20 * 2**30
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
    return _read_job(_job_path(shop, job_id)) if job_id.isascii() and job_id.isalnum() else None


def list_jobs(shop: Shop) -> list[ExportJob]:
    """All jobs, the oldest first; only those that have changed since the last call are read."""
    parsed = _parsed_by_home.setdefault(shop.home, {})
    paths = list(_folder(shop).glob("*.json"))
    for path in parsed.keys() - set(paths):
        parsed.pop(path, None)
    jobs = [job for path in paths if (job := _read_changed(parsed, path)) is not None]
    return sorted(jobs, key=lambda job: (job.created_at, job.job_id))


#: The jobs that were read last, with the fingerprints of their files, by home.
_parsed_by_home: dict[Path, dict[Path, tuple[FileFingerprint, ExportJob]]] = {}


def _read_changed(parsed: dict[Path, tuple[FileFingerprint, ExportJob]], path: Path) -> ExportJob | None:
    fingerprint = durable_files.read_fingerprint(path)
    stored = parsed.get(path)
    if stored is not None and stored[0] == fingerprint:
        return stored[1]
    job = _read_job(path)
    if job is not None:
        parsed[path] = fingerprint, job
    return job


def _read_job(path: Path) -> ExportJob | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    times = {name: datetime.fromisoformat(fields[name]) for name in _TIMES if fields[name]}
    return ExportJob(**(fields | times))


def delete_old_jobs(shop: Shop, now: datetime) -> None:
    """Delete finished jobs with their files: those of more than RETENTION_DAYS ago, and the oldest above the limits.

    The newest finished job stays, whatever its size.
    """
    finished = [job for job in reversed(list_jobs(shop)) if job.finished_at is not None]
    total_bytes = 0
    for number, job in enumerate(finished):
        total_bytes += job.size_bytes or 0
        is_too_much = number >= MAX_FINISHED or (number > 0 and total_bytes > MAX_BYTES)
        is_old = job.finished_at is not None and job.finished_at < now - timedelta(days=RETENTION_DAYS)
        if is_old or is_too_much:
            export_path(shop, job).unlink(missing_ok=True)
            _job_path(shop, job.job_id).unlink(missing_ok=True)


def export_path(shop: Shop, job: ExportJob) -> Path:
    """Where the file of a finished job lies."""
    return shop.home / "exports" / job.file_name


def partial_path(shop: Shop, job: ExportJob) -> Path:
    """Where the file of a running job is written: not among the exports."""
    return _folder(shop) / f"{job.file_name}.partial"


def _folder(shop: Shop) -> Path:
    return shop.home / "export-jobs"


def _job_path(shop: Shop, job_id: str) -> Path:
    return _folder(shop) / f"{job_id}.json"
