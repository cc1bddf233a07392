"""The export of ineligible offers agrees with the answers of the API."""

from pathlib import Path
from typing import Any

import pandas as pd

from customers import setup
from customers.marketing import eligibility
from serving.offers import ineligible_offers

#: Why an offer does not run at all: true for everybody, and no row of an export.
NOT_NOW = eligibility.REASONS[1:3]


def offers_by_customer(api: Any, *names: str) -> dict[str, dict[str, Any]]:
    response = api.post("/v1/offers", {"customer_ids": list(names), "n": 50})
    assert response.status_code == 200, response.text
    return {result["customer_id"]: result for result in response.json()["results"]}


def test_every_running_offer_is_made_or_dropped_for_the_reason_that_the_counter_gives(api: Any) -> None:
    table = ineligible_offers.list_ineligible_offers(api.shop)
    assert tuple(table) == ineligible_offers.INELIGIBLE_COLUMNS
    answers = offers_by_customer(api, *(f"c{number:03d}" for number in range(20)))
    for name, result in answers.items():
        rows = table[table["customer_id"] == name]
        expected = [(each["offer_id"], each["reason"]) for each in result["dropped"] if each["reason"] not in NOT_NOW]
        assert list(zip(rows["offer_id"], rows["reason"], strict=True)) == expected
        assert not {item["offer_id"] for item in result["items"]} & set(rows["offer_id"])
    assert len(table[table["customer_id"].isin(list(answers))]) > 0


def test_no_list_of_all_customers_is_written_with_their_rows(api: Any) -> None:
    table = ineligible_offers.list_ineligible_offers(api.shop)
    assert isinstance(table["reason"].dtype, pd.CategoricalDtype)
    assert not isinstance(table["customer_id"].dtype, pd.CategoricalDtype)


def test_what_somebody_is_not_made_names_its_campaign(api: Any) -> None:
    table = ineligible_offers.list_ineligible_offers(api.shop)
    letters = table[table["reason"] == "it is only for those who received its campaign"]
    assert letters["campaign_id"].notna().all()


def test_before_the_first_night_there_is_an_empty_table(tmp_path: Path) -> None:
    table = ineligible_offers.list_ineligible_offers(setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR"))
    assert tuple(table) == ineligible_offers.INELIGIBLE_COLUMNS
    pd.testing.assert_index_equal(table.index, pd.RangeIndex(0), exact=False)
