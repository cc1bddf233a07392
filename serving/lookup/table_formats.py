"""Responses as tables, on Accept: an Arrow IPC stream or a Parquet file, a row per customer.

The columns are the fields of a result, nested as in JSON; the fields around the results are in the schema's metadata,
as JSON under the key `regulars`.
"""

from __future__ import annotations

import types
from datetime import datetime
from functools import cache
from io import BytesIO
from typing import Any, Literal, Union, get_args, get_origin

import orjson
import pyarrow as pa
import pyarrow.json as arrow_json
import pyarrow.parquet as pq
from pydantic import BaseModel
from starlette.responses import Response

from serving.api.schemas.predictions import ChurnResult, NextPurchaseResult, OffersResult, RestockResult, ValueResult
from serving.api.schemas.recommendations import RecommendationResult

ARROW_STREAM, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
METADATA_KEY = b"regulars"
#: The result of each question.
RESULT_TYPES: dict[str, type[BaseModel]] = {
    "recommendations": RecommendationResult,
    "offers": OffersResult,
    "churn": ChurnResult,
    "next-purchase": NextPurchaseResult,
    "value": ValueResult,
    "restock": RestockResult,
}
_PLAIN_TYPES = {
    str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_(), datetime: pa.timestamp("us", "UTC"),
}  # fmt: skip


def choose_format(accept: str) -> str | None:
    """The table format that the Accept header names; None for JSON."""
    names = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return next((name for name in names if name in (ARROW_STREAM, PARQUET)), None)


def to_table_response(question: str, document: dict[str, Any], media_type: str) -> Response:
    """The response of a question, given with its results, in a table format."""
    results = document["results"]
    envelope = {name: value for name, value in document.items() if name != "results"}
    table = read_results(question, results).replace_schema_metadata({METADATA_KEY: orjson.dumps(envelope)})
    sink = BytesIO()
    if media_type == PARQUET:
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return Response(sink.getvalue(), media_type=media_type)


def read_results(question: str, results: list[Any]) -> pa.Table:
    """The results as a table, a row per customer, columns as the fields of the question's result."""
    lines = b"\n".join(orjson.dumps(result) for result in results)
    options = arrow_json.ParseOptions(explicit_schema=result_schema(question), unexpected_field_behavior="error")
    block = arrow_json.ReadOptions(block_size=max(len(lines) + 1, 1 << 20))
    return arrow_json.read_json(BytesIO(lines), read_options=block, parse_options=options)


@cache
def result_schema(question: str) -> pa.Schema:
    """The columns of a question's table."""
    return pa.schema(_fields(RESULT_TYPES[question]))


def _fields(model: type[BaseModel]) -> list[pa.Field]:
    return [pa.field(name, _arrow_type(field.annotation)) for name, field in model.model_fields.items()]


def _arrow_type(annotation: Any) -> pa.DataType:
    """The Arrow type of an annotation of a response schema."""
    if annotation in _PLAIN_TYPES:
        return _PLAIN_TYPES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return pa.string()
    if origin in (Union, types.UnionType):
        return _arrow_type(next(each for each in arguments if each is not type(None)))
    if origin is list:
        return pa.list_(_arrow_type(arguments[0]))
    if origin is dict:  # its keys are few names
        return pa.struct([pa.field(name, _arrow_type(arguments[1])) for name in get_args(arguments[0])])
    return pa.struct(_fields(annotation))
