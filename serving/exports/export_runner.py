"""Runs export jobs, in a process of its own: its memory and its processor time are not those of a worker.

python -m serving.exports.export_runner HOME
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from customers.database import engine, shop_lock
from customers.privacy import tombstones
from customers.reports import export_files, exports
from customers.scores import score_store
from customers.shop import durable_files, settings
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from serving import logs
from serving.exports import export_jobs
from serving.exports.export_jobs import ExportJob
from serving.http import problems

log = logging.getLogger("regulars.exports")

#: A job is begun so often, whether it was interrupted or what it reads has changed; then it fails.
MAX_ATTEMPTS = 3
_NICENESS = 10
LOCK_NAME = "exports"


class _SourceChanged(Exception):
    """What the file was made of has changed meanwhile."""


def run_jobs(shop: Shop) -> None:
    """Carry out all unfinished jobs, one after the other, unless another process does."""
    with suppress(shop_lock.LockHeld), shop_lock.hold_home(shop, LOCK_NAME, wait=False):
        while (job := find_unfinished(shop)) is not None:
            run_job(shop, job)
            export_jobs.delete_old_jobs(shop, datetime.now(UTC))


def find_unfinished(shop: Shop) -> ExportJob | None:
    """The oldest job without a file; one that is running was interrupted, where nobody holds the lock."""
    return next((job for job in export_jobs.list_jobs(shop) if not job.is_finished), None)


def run_job(shop: Shop, job: ExportJob) -> ExportJob:
    """Carry out one job: done, failed with its reason, or running where it must be begun once more."""
    partial = export_jobs.partial_path(shop, job)
    if job.attempts >= MAX_ATTEMPTS:
        partial.unlink(missing_ok=True)
        return _fail(
            shop, job, f"it was begun {MAX_ATTEMPTS} times, and was interrupted or its scores changed each time"
        )
    started_at = datetime.now(UTC)
    job = export_jobs.save_job(shop, job, state=export_jobs.RUNNING, attempts=job.attempts + 1, started_at=started_at)
    try:
        rows = _write_file(shop, job, partial)
    except _SourceChanged:
        return job
    except OSError as error:
        return _fail(shop, job, f"the file cannot be written: {error.strerror}")
    except ShopError as error:
        return _fail(shop, job, str(error))
    except Exception as error:
        log.error("an export failed: %s", problems.describe_traceback(error))
        return _fail(shop, job, "an unexpected error, which the server's log describes")
    finally:
        partial.unlink(missing_ok=True)
    size_bytes = export_jobs.export_path(shop, job).stat().st_size
    return export_jobs.save_job(
        shop, job, state=export_jobs.DONE, rows=rows, size_bytes=size_bytes, finished_at=datetime.now(UTC)
    )


def _write_file(shop: Shop, job: ExportJob, partial: Path) -> int:
    """Write the whole file and move it among the exports; the number of rows.

    Raises _SourceChanged, and leaves no file, where a run of scores was replaced or a customer erased meanwhile.
    """
    before = _read_source(shop, job)
    rows = export_files.write_frames(exports.iter_tables(shop, job.table, as_of=job.as_of), partial, job.file_format)
    durable_files.sync(partial)
    path = export_jobs.export_path(shop, job)
    path.parent.mkdir(exist_ok=True)
    partial.replace(path)
    # Not before: an erasure removes its rows from the files that it finds.
    if _read_source(shop, job) != before:
        path.unlink(missing_ok=True)
        raise _SourceChanged
    return rows


def _read_source(shop: Shop, job: ExportJob) -> Any:
    """The finished runs of scores that the table is made of, and the latest erasure."""
    runs = [score_store.newest_run(shop, model, job.as_of) for model in exports.MODELS]
    with engine.read_transaction(shop) as connection:
        erasure_id = tombstones.latest_erasure_id(connection)
    return [(run.run_id, run.finished_at) if run else None for run in runs], erasure_id


def _fail(shop: Shop, job: ExportJob, reason: str) -> ExportJob:
    return export_jobs.save_job(shop, job, state=export_jobs.FAILED, error=reason, finished_at=datetime.now(UTC))


def main() -> None:
    """Carry out the unfinished jobs of the home that is the only argument."""
    os.nice(_NICENESS)
    logs.configure()
    run_jobs(settings.open_shop(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
