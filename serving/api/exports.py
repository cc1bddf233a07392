"""Endpoints of export jobs: order a whole table, ask for its state, read its file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response

from customers.scores import night_marker, score_store
from customers.shop.settings import Shop
from serving import runtime
from serving.api.records import IdempotencyKey
from serving.api.schemas.exports import ExportQuestion, ExportState, ExportWebhook
from serving.exports import export_jobs, webhook_addresses
from serving.exports.export_jobs import ExportJob
from serving.exports.webhook_addresses import WebhookRefused
from serving.http import idempotency
from serving.http.problems import Problem

router = APIRouter(prefix="/v1/exports", tags=["exports"])

#: With more unfinished jobs, further ones are refused for a while.
MAX_UNFINISHED, RETRY_AFTER_SECONDS = 20, 30
MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}

ExportId = Annotated[str, Path(min_length=1, max_length=64, description="The id of the export.")]


@router.post("", status_code=202, response_model=ExportState)
async def create_export(request: Request, question: ExportQuestion, idempotency_key: IdempotencyKey = None) -> Response:
    """Order a table of the last night as a file. The answer comes at once; the file is written in the background."""
    body = await request.body()
    return await run_in_threadpool(_create_once, request, body, question)


@router.get("/{export_id}", response_model=ExportState)
def read_export(export_id: ExportId) -> ExportState:
    """The state of an export. Raises a problem (404) for an unknown one, or one that was deleted after a week."""
    return _describe(_find_job(runtime.get_runtime().shop, export_id))


@router.get("/{export_id}/file", response_class=FileResponse)
def read_export_file(export_id: ExportId) -> Response:
    """The file of a finished export; ranges of bytes are answered. Raises a problem (409) where it is not there yet."""
    shop = runtime.get_runtime().shop
    job = _find_job(shop, export_id)
    path = export_jobs.export_path(shop, job)
    if job.state != export_jobs.DONE or not path.exists():
        raise Problem(409, f"This export is {job.state}; its file can be read once it is {export_jobs.DONE}.")
    return FileResponse(path, media_type=MEDIA_TYPES[job.file_format], filename=job.file_name)


def _create_once(request: Request, body: bytes, question: ExportQuestion) -> Response:
    shop = runtime.get_runtime().shop
    return idempotency.run_once(shop, request, body, lambda: _create(shop, question))


def _create(shop: Shop, question: ExportQuestion) -> Response:
    if question.webhook_url is not None:
        try:
            webhook_addresses.check_url(question.webhook_url)
        except WebhookRefused as refusal:
            raise Problem(422, errors=[{"pointer": "/webhook_url", "detail": str(refusal)}]) from None
    # Not the newest scores: while a night is at work, some models have finished and others have not.
    as_of = night_marker.read_marker(shop.home) or score_store.last_finished_as_of(shop)
    if as_of is None:
        raise Problem(409, "There are no scores to export yet; run: regulars run")
    if sum(not job.is_finished for job in export_jobs.list_jobs(shop)) >= MAX_UNFINISHED:
        raise Problem(
            429, f"{MAX_UNFINISHED} exports are unfinished; order this one later.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )  # fmt: skip
    job = export_jobs.create_job(shop, question.table, question.format, as_of=as_of, webhook_url=question.webhook_url)
    return JSONResponse(_describe(job).model_dump(mode="json"), 202, headers={"Location": f"/v1/exports/{job.job_id}"})


def _find_job(shop: Shop, export_id: str) -> ExportJob:
    job = export_jobs.load_job(shop, export_id)
    if job is None:
        raise Problem(404, "There is no such export, or its file was deleted; order it again.")
    return job


def _describe(job: ExportJob) -> ExportState:
    webhook = None
    if job.webhook_state is not None:
        webhook = ExportWebhook.model_validate({"state": job.webhook_state, "attempts": job.webhook_attempts})
    return ExportState.model_validate(
        {
            "export_id": job.job_id,
            "state": job.state,
            "table": job.table,
            "format": job.file_format,
            "as_of": job.as_of,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "rows": job.rows,
            "size_bytes": job.size_bytes,
            "location": f"/v1/exports/{job.job_id}/file" if job.state == export_jobs.DONE else None,
            "error": job.error,
            "webhook": webhook,
        }
    )
