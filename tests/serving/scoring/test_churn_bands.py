"""Bands by what a contact costs: a customer whom contact does not pay is not on the list, at night and online."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LETTER, CALL, SAVED = 0.5, 2.0, 0.1


@pytest.fixture
def thrifty(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api_for: Any) -> Iterator[Any]:
    """The API of a shop with costs of letters and calls."""
    monkeypatch.setenv(
        "REGULARS_RETENTION", f"{{ contact_cost = {LETTER}, high_cost = {CALL}, saved_share = {SAVED} }}"
    )
    shutil.copytree(trained_home, tmp_path / "home")
    yield from api_for(tmp_path / "home")


def test_bands_follow_what_a_contact_saves_of_each_customers_value(thrifty: Any, score_customers: Any) -> None:
    from customers.reports import exports

    score_customers(thrifty.shop)
    scores = exports.build_table(thrifty.shop, "scores").set_index("customer_id")
    scores = scores[scores["churn_band"] != "lapsed"]
    saved = scores["churn_probability"] * scores["expected_value"] * SAVED
    expected = saved.map(lambda amount: "high" if amount > CALL else "medium" if amount > LETTER else "low")
    assert scores["churn_band"].to_dict() == expected.to_dict()
    assert scores["churn_band"].nunique() >= 2
    customer_ids = scores.index[:20].tolist()
    answers = thrifty.post("/v1/churn", {"customer_ids": customer_ids}).json()["results"]
    assert [answer["band"] for answer in answers] == expected[customer_ids].tolist()
    shown = thrifty.read("/v1/at-risk?limit=1000").json()["items"]
    assert {entry["customer_id"] for entry in shown} == set(expected.index[expected != "low"])
