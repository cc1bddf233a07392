"""What is exported of the offers that may not be made is what the counter says when it is asked."""

from pathlib import Path
from typing import Any

import pandas as pd

from customers import shop as shops
from serving import eligibility, withheld

#: Why an offer does not run at all: true for everybody, and no row of an export.
NOT_NOW = eligibility.REASONS[1:3]


def asked(counter: Any, *names: str) -> dict[str, dict[str, Any]]:
    response = counter.ask("/v1/offers", {"customer_ids": list(names), "n": 50})
    assert response.status_code == 200, response.text
    return {result["customer_id"]: result for result in response.json()["results"]}


def test_every_running_offer_is_made_or_dropped_for_the_reason_that_the_counter_gives(counter: Any) -> None:
    found = withheld.table(counter.shop)
    assert tuple(found) == withheld.WITHHELD
    told = asked(counter, *(f"c{number:03d}" for number in range(20)))
    for name, result in told.items():
        mine = found[found["customer_id"] == name]
        expected = [(each["offer_id"], each["reason"]) for each in result["dropped"] if each["reason"] not in NOT_NOW]
        assert list(zip(mine["offer_id"], mine["reason"], strict=True)) == expected
        assert not {item["offer_id"] for item in result["items"]} & set(mine["offer_id"])
    assert len(found[found["customer_id"].isin(list(told))]) > 0


def test_no_list_of_all_customers_is_written_with_their_rows(counter: Any) -> None:
    found = withheld.table(counter.shop)
    assert isinstance(found["reason"].dtype, pd.CategoricalDtype)
    assert not isinstance(found["customer_id"].dtype, pd.CategoricalDtype)


def test_what_somebody_is_not_made_names_its_campaign(counter: Any) -> None:
    found = withheld.table(counter.shop)
    letters = found[found["reason"] == "it is only for those who received its campaign"]
    assert letters["campaign_id"].notna().all()


def test_before_the_first_night_there_is_an_empty_table(tmp_path: Path) -> None:
    found = withheld.table(shops.init(tmp_path / "home", timezone="UTC", currency="EUR"))
    assert tuple(found) == withheld.WITHHELD
    pd.testing.assert_index_equal(found.index, pd.RangeIndex(0), exact=False)
