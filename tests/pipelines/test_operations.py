"""Operations that the command line and the scheduler share."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from customers import setup
from customers.database import engine
from customers.people import lookup
from customers.reports import exports
from customers.shop import settings
from pipelines import operations
from pipelines.errors import NothingToDo, WrongUsage
from pipelines.reporting import terminal_text


@pytest.mark.acceptance
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


@pytest.mark.acceptance
def test_a_customer_without_offers_has_an_empty_list(first_run: tuple[Path, dict]) -> None:
    assert operations.list_offers(settings.open_shop(first_run[0]), ["c001", "nobody"], 5) == {
        "c001": [],
        "nobody": [],
    }


@pytest.mark.acceptance
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


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["scores", "recommendations", "at-risk"])
def test_the_parts_of_an_export_are_its_table(
    first_run: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(exports, "OTHERS_AT_ONCE", 60)
    monkeypatch.setattr(exports, "CUSTOMERS_AT_ONCE", {"recommendations": 60})
    shop, out = settings.open_shop(first_run[0]), tmp_path / name
    for _ in range(2):  # the second export replaces the first
        n_rows = operations.export_table(shop, name, out)
        parts = sorted(out.iterdir())
        assert [path.name for path in parts] == [
            f"part-{number:05}.parquet" for number in range(1 if name == "at-risk" else 3)
        ]
        table = pd.concat([pd.read_parquet(path) for path in parts], ignore_index=True)
        pd.testing.assert_frame_equal(table, operations.load_table(shop, name), check_dtype=False)
        assert len(table) == n_rows
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.acceptance
def test_a_folder_with_other_files_is_not_replaced_by_an_export(first_run: tuple[Path, dict], tmp_path: Path) -> None:
    shop, other = settings.open_shop(first_run[0]), tmp_path / "photo.jpg"
    other.touch()
    with pytest.raises(WrongUsage, match="something else"):
        operations.export_table(shop, "scores", tmp_path)
    with pytest.raises(WrongUsage, match="not cut into portions"):
        operations.export_table(shop, "dropped-offers", tmp_path / "dropped")
    assert list(tmp_path.iterdir()) == [other]


def test_saved_value_has_a_column_where_any_customer_has_one() -> None:
    row = {"customer_id": "anna", "churn_probability": 0.5, "churn_band": "high", "value_at_risk": 30.0,
           "saved_value": None, "contactable": [], "suggested_offer_id": None, "reasons": []}  # fmt: skip
    assert "saved" not in terminal_text.format_at_risk([row])
    head, first, second = terminal_text.format_at_risk([row, row | {"saved_value": 2.5}]).splitlines()
    assert head.split() == ["customer", "p(churn)", "band", "at", "risk", "saved", "by", "offer", "why"]
    assert (first.split()[3:5], second.split()[3:5]) == (["30.00", "-"], ["30.00", "2.50"])


def test_a_restored_backup_follows_the_tombstones_saved_since(tmp_path: Path) -> None:
    """Anna and Ben are erased after the backup; of the restored shop only Carla remains, also after a reload."""
    shop = setup.init_home(tmp_path / "home")
    people = tmp_path / "customers.csv"
    people.write_text("customer_id,given_name\nanna,Anna\nben,Ben\ncarla,Carla\n", encoding="utf-8")
    operations.load_records(shop, "customers", [people], source="files")
    engine.get_engine(shop).dispose()
    backup = shutil.copytree(shop.home, tmp_path / "backup")
    for customer_id in ("anna", "ben"):
        operations.erase_customer(shop, customer_id)
    assert operations.save_tombstones(shop, tmp_path / "tombstones.txt") == 2
    assert "anna" not in (tmp_path / "tombstones.txt").read_text(encoding="ascii")

    restored = settings.open_shop(backup)
    assert operations.follow_tombstones(restored, tmp_path / "tombstones.txt") == {"erased": 2, "added": 0}
    operations.load_records(restored, "customers", [people], source="files")
    assert set(lookup.find_keys(restored, ["anna", "ben", "carla"])) == {"carla"}
    assert operations.follow_tombstones(restored, tmp_path / "tombstones.txt") == {"erased": 0, "added": 0}


@pytest.mark.parametrize("text", ["anna 1\n", "00ff\n", "00ff yesterday\n", "\x00"])
def test_a_file_that_holds_no_tombstones_erases_nobody(tmp_path: Path, text: str) -> None:
    shop = setup.init_home(tmp_path / "home")
    (tmp_path / "tombstones.txt").write_text(text, encoding="utf-8")
    with pytest.raises(NothingToDo, match="regulars tombstones save"):
        operations.follow_tombstones(shop, tmp_path / "tombstones.txt")
    with pytest.raises(NothingToDo, match="cannot write"):
        operations.save_tombstones(shop, tmp_path / "nowhere" / "tombstones.txt")
