"""JSON that is written piece by piece is JSON, whatever numbers the arrays hold."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.lookup import answer_table

NUMBERS = [0.0, -0.0, 1.0, 0.1, 1e-9, 5e-324, 1e300, 123456789.123456789, 1 / 3]


@pytest.fixture
def changing_api(home_with_scores: Path, tmp_path: Path, api_for: Any) -> Iterator[Any]:
    """An API whose customers are scored, and whose home no other test changes."""
    from serving import runtime

    shutil.copytree(home_with_scores, tmp_path / "home")
    for api in api_for(tmp_path / "home"):
        runtime.open_runtime(api.shop).features.apply()
        yield api


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse(text: str) -> Any:
    return json.loads(text, parse_constant=refuse_constant)


def test_numbers_are_read_back_to_the_last_digit() -> None:
    texts = answer_table.encode_numbers(np.array(NUMBERS))
    assert [parse(text or "") for text in texts] == NUMBERS
    singles = np.array([0.1, 1 / 3], np.float32)
    assert [parse(text or "") for text in answer_table.encode_numbers(singles)] == singles.tolist()
    assert answer_table.encode_numbers(np.empty(0)) == []


def test_what_json_does_not_have_is_no_number() -> None:
    assert answer_table.encode_numbers(np.array([np.nan, 0.5, np.inf, -np.inf])) == [None, "0.5", None, None]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("question", "model", "column"),
    [("recommendations", "recommender", "any.score"), ("restock", "restock", "items.p"),
     ("churn", "churn", "probability"),
     ("next-purchase", "timing", "p"), ("value", "value", "expected"), ("offers", "offers", "cells.p")],
)  # fmt: skip
def test_a_number_that_is_not_finite_is_never_sent(
    changing_api: Any, question: str, model: str, column: str, value: float
) -> None:
    """A single customer's answer, and one among others, is JSON: computed again, or without the number."""
    from serving.arrays import column_files, night_arrays

    arrays = night_arrays.load(changing_api.shop.home, model)
    assert arrays is not None
    column_files.map_for_writing(arrays.folder, column)[:] = value
    single = changing_api.read(f"/v1/customers/c001/{question}")
    several = changing_api.post(f"/v1/{question}", {"customer_ids": ["c001", "nobody", "c002"]})
    assert (single.status_code, several.status_code) == (200, 200), several.text
    for response in (single, several):
        assert all(result["customer_id"] for result in parse(response.text)["results"])


def test_customers_without_a_number_are_computed_and_the_others_are_looked_up(changing_api: Any) -> None:
    from serving.arrays import column_files, night_arrays

    for question, model, column, list_name in (
        ("recommendations", "recommender", "any.score", "any"),
        ("restock", "restock", "items.p", "items"),
    ):
        body = {"customer_ids": ["c001", "c002", "c003"]}
        before = changing_api.post(f"/v1/{question}", body).json()["results"]
        arrays = night_arrays.load(changing_api.shop.home, model)
        assert arrays is not None
        stored = column_files.map_for_writing(arrays.folder, column)
        start, end = arrays.columns.bounds(list_name, 1)
        stored[start:end] = np.nan
        assert changing_api.post(f"/v1/{question}", body).json()["results"] == before
