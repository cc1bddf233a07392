"""Operations that the command line and the scheduler share."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from customers.shop import settings
from pipelines import operations
from pipelines.errors import NothingToDo, WrongUsage
from pipelines.reporting import terminal_text


def test_a_customer_is_exported_and_then_erased(first_run: tuple[Path, dict], tmp_path: Path) -> None:
    shop = settings.open_shop(Path(shutil.copytree(first_run[0], tmp_path / "home")))
    exported = operations.export_customer(shop, "c002")
    assert exported["profile"]["given_name"] == "Zoë"
    assert exported["features"]["recency_days"] >= 0
    assert operations.erase_customer(shop, "c002")["lines"] == sum(len(order["lines"]) for order in exported["orders"])
    with pytest.raises(NothingToDo, match="no customer has that id"):
        operations.export_customer(shop, "c002")
    for table in ("scores", "recommendations", "restock", "customers"):
        assert "c002" not in set(operations.load_table(shop, table)["customer_id"])


def test_a_customer_without_offers_has_an_empty_list(first_run: tuple[Path, dict]) -> None:
    assert operations.list_offers(settings.open_shop(first_run[0]), ["c001", "nobody"], 5) == {
        "c001": [],
        "nobody": [],
    }


def test_ineligible_offers_are_a_table_of_their_own(first_run: tuple[Path, dict], tmp_path: Path) -> None:
    """Half of the customers allow post, and half received the last mailing."""
    shop, out = settings.open_shop(first_run[0]), tmp_path / "dropped.csv"
    rows = operations.export_table(shop, "dropped-offers", out)
    ineligible = pd.read_csv(out)
    assert (len(ineligible), list(ineligible)) == (rows, ["customer_id", "offer_id", "campaign_id", "reason"])
    eligible = operations.load_table(shop, "offers")
    assert not {*zip(eligible["customer_id"], eligible["offer_id"], strict=True)} & {
        *zip(ineligible["customer_id"], ineligible["offer_id"], strict=True)
    }
    with pytest.raises(WrongUsage, match="dropped-offers"):
        operations.load_table(shop, "no such table")


def test_saved_value_has_a_column_where_any_customer_has_one() -> None:
    row = {"customer_id": "anna", "churn_probability": 0.5, "churn_band": "high", "value_at_risk": 30.0,
           "saved_value": None, "contactable": [], "suggested_offer_id": None, "reasons": []}  # fmt: skip
    assert "saved" not in terminal_text.format_at_risk([row])
    head, first, second = terminal_text.format_at_risk([row, row | {"saved_value": 2.5}]).splitlines()
    assert head.split() == ["customer", "p(churn)", "band", "at", "risk", "saved", "by", "offer", "why"]
    assert (first.split()[3:5], second.split()[3:5]) == (["30.00", "-"], ["30.00", "2.50"])
