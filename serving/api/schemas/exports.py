"""Schemas of export jobs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from customers.reports import export_files, exports
from serving.api.schemas.common import Question

if TYPE_CHECKING:
    TableName = str
    FileFormat = str
else:
    TableName = Literal[tuple(exports.TABLES)]
    FileFormat = Literal[tuple(export_files.FORMATS.values())]

WebhookUrl = Annotated[str, StringConstraints(min_length=10, max_length=1_000, pattern=r"^[\x21-\x7e]+$")]


class ExportQuestion(Question):
    """A table to export as a file."""

    table: TableName = Field(description="See the exported tables under Records.")
    format: FileFormat = "parquet"
    webhook_url: WebhookUrl | None = Field(default=None, description="Called once the file is there, or will not come.")


class ExportWebhook(BaseModel):
    """What has become of the webhook."""

    state: Literal["pending", "delivered", "failed"]
    attempts: int


class ExportState(BaseModel):
    """An export job: queued, running, done or failed; `location` is the path of the file once it is done."""

    export_id: str
    state: Literal["queued", "running", "done", "failed"]
    table: str
    format: str
    as_of: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    rows: int | None
    size_bytes: int | None
    location: str | None
    error: str | None
    webhook: ExportWebhook | None
