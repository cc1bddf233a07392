"""Bands by what a contact costs: whom it does not pay to write to is left in peace, by night and at the door."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LETTER, CALL, SAVED = 0.5, 2.0, 0.1


@pytest.fixture
def thrifty(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api_for: Any) -> Iterator[Any]:
    """A api of a shop that knows what its letters and calls cost."""
    monkeypatch.setenv(
        "REGULARS_RETENTION", f"{{ contact_cost = {LETTER}, high_cost = {CALL}, saved_share = {SAVED} }}"
    )
    shutil.copytree(trained_home, tmp_path / "home")
    yield from api_for(tmp_path / "home")


def test_bands_follow_what_a_contact_saves_of_each_customers_value(thrifty: Any, score_customers: Any) -> None:
    from customers.reports import exports

    score_customers(thrifty.shop)
    told = exports.build_table(thrifty.shop, "scores").set_index("customer_id")
    told = told[told["churn_band"] != "lapsed"]
    saved = told["churn_probability"] * told["expected_value"] * SAVED
    wanted = saved.map(lambda amount: "high" if amount > CALL else "medium" if amount > LETTER else "low")
    assert told["churn_band"].to_dict() == wanted.to_dict()
    assert told["churn_band"].nunique() >= 2
    asked = told.index[:20].tolist()
    answers = thrifty.post("/v1/churn", {"customer_ids": asked}).json()["results"]
    assert [answer["band"] for answer in answers] == wanted[asked].tolist()
    shown = thrifty.read("/v1/at-risk?limit=1000").json()["items"]
    assert {entry["customer_id"] for entry in shown} == set(wanted.index[wanted != "low"])
