"""Answers about many customers as Arrow streams and Parquet files."""

import json
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.lookup import table_formats
from serving.lookup.table_formats import ARROW_STREAM, METADATA_KEY, PARQUET

NAMES = ["c000", "c001", "nobody", "c002", "c001"]


def read_table(response: Any) -> pa.Table:
    assert response.status_code == 200, response.text
    content = BytesIO(response.content)
    if response.headers["content-type"] == PARQUET:
        return pq.read_table(content)
    return pa.ipc.open_stream(content).read_all()


def post(api: Any, question: str, accept: str, **parameters: Any) -> Any:
    headers = api.key("admin") | {"Accept": accept}
    return api.client.post(f"/v1/{question}", json={"customer_ids": NAMES, **parameters}, headers=headers)


def as_json(value: Any) -> Any:
    """A value of a table as JSON has it."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


@pytest.mark.parametrize("media_type", [ARROW_STREAM, PARQUET])
@pytest.mark.parametrize("question", sorted(table_formats.RESULT_TYPES))
def test_a_table_holds_what_json_holds(api: Any, question: str, media_type: str) -> None:
    table = read_table(post(api, question, f"{media_type}, application/json;q=0.5"))
    expected = post(api, question, "application/json").json()
    assert as_json(table.to_pylist()) == expected["results"]
    assert table.schema.remove_metadata() == table_formats.result_schema(question)
    envelope = json.loads(table.schema.metadata[METADATA_KEY])
    assert envelope["models"] == expected["models"]
    assert envelope["as_of"] == expected["as_of"]


def test_a_request_that_cannot_be_looked_up_is_answered_as_a_table_too(api: Any) -> None:
    table = read_table(post(api, "recommendations", PARQUET, exclude_product_ids=["p01"]))
    listed = {item["product_id"] for result in table.to_pylist() for item in result["items"]}
    assert listed
    assert "p01" not in listed


def test_an_invalid_request_is_refused_in_the_usual_way(api: Any) -> None:
    refused = post(api, "recommendations", PARQUET, n=0)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/n"


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/html,application/xhtml+xml"])
def test_other_requests_get_json(accept: str) -> None:
    assert table_formats.choose_format(accept) is None
