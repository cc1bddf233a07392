"""Shops that no model was made for: whatever they lack, every number that is told can be true."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from customers import setup
from customers.shop.settings import Shop
from pipelines import data_sufficiency, operations
from pipelines.errors import NothingToDo
from pipelines.nightly import run as nightly_run

Till = Callable[..., Path]
Line = tuple[object, ...]
DAY = datetime(2025, 1, 2, 10)


def silent(text: str) -> None:
    """Nobody watches the night in a test."""


def once_each() -> list[Line]:
    """Thirty customers who came once, one after the other."""
    return [(f"o{n}", 0, f"顾客{n}", "p1", (DAY + timedelta(days=n)).isoformat(), 1, 5, 0) for n in range(30)]


def one_who_lives_there() -> list[Line]:
    """A customer with four thousand visits, some of which the till dated years too early, and a few others."""
    mine = [(f"v{n}", 0, "staff", "p1", (DAY + timedelta(hours=n)).isoformat(), 1, 2, 0) for n in range(4_000)]
    jumped = [(f"j{n}", 0, "staff", "p1", f"2001-01-0{n}T00:00:00", 1, 2, 0) for n in range(1, 4)]
    return [*mine, *jumped, *once_each()]


def opened(home: Path, export: Path) -> Shop:
    shop = setup.init_home(home, timezone="Asia/Shanghai", currency="CNY", now="last-sale")
    operations.load_records(shop, "transactions", [export], source="files")
    return shop


@pytest.mark.parametrize("sold", [once_each, one_who_lives_there])
def test_an_odd_shop_hears_numbers_that_can_be_true(sold: Callable[[], list[Line]], tmp_path: Path, till: Till) -> None:
    shop = opened(tmp_path / "home", till(*sold()))
    nightly_run.run_nightly(shop, progress=silent)
    said = operations.load_table(shop, "scores")
    assert len(said) == len({line[2] for line in sold()})
    chances = said[["churn_probability", "p_purchase_7d", "p_purchase_14d", "p_purchase_28d"]].to_numpy(float)
    known = chances[np.isfinite(chances)]
    assert len(known) >= len(said), "everybody has a chance to stay away"
    assert ((known >= 0) & (known <= 1)).all()
    assert (said["next_purchase_days_p50"].dropna() >= 1).all(), "nobody is awaited in the past"
    assert (said["expected_value"].dropna() >= 0).all()
    assert np.isfinite(said["churn_probability"].to_numpy(float)).all()
    assert {need["model"] for need in data_sufficiency.check_sufficiency(shop)} >= {
        "churn",
        "timing",
        "restock",
        "value",
        "season",
    }


def test_a_till_that_forgets_what_was_paid_is_told_so_and_nothing_is_made_up(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="Asia/Shanghai", currency="CNY", now="last-sale")
    told = operations.load_records(
        shop, "transactions", [till(*((*line[:6], "", "") for line in once_each()))], source="files"
    )
    assert told["reasons"] == {"amount is empty": 30}
    with pytest.raises(NothingToDo, match="bought anything"):
        nightly_run.run_nightly(shop, progress=silent)
