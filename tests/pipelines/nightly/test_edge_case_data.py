"""Nightly runs over unusual data: every score that is written stays in its valid range."""

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

pytestmark = pytest.mark.acceptance  # whole nights

Till = Callable[..., Path]
Line = tuple[object, ...]
DAY = datetime(2025, 1, 2, 10)


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


def one_visit_each() -> list[Line]:
    """Thirty customers with one visit each, on consecutive days."""
    return [(f"o{n}", 0, f"顾客{n}", "p1", (DAY + timedelta(days=n)).isoformat(), 1, 5, 0) for n in range(30)]


def one_very_frequent_customer() -> list[Line]:
    """A customer with four thousand visits and three dated years too early, and thirty other customers."""
    frequent = [(f"v{n}", 0, "staff", "p1", (DAY + timedelta(hours=n)).isoformat(), 1, 2, 0) for n in range(4_000)]
    misdated = [(f"j{n}", 0, "staff", "p1", f"2001-01-0{n}T00:00:00", 1, 2, 0) for n in range(1, 4)]
    return [*frequent, *misdated, *one_visit_each()]


def create_shop(home: Path, export: Path) -> Shop:
    shop = setup.init_home(home, timezone="Asia/Shanghai", currency="CNY", now="last-sale")
    operations.load_records(shop, "transactions", [export], source="files")
    return shop


@pytest.mark.parametrize("sold", [one_visit_each, one_very_frequent_customer])
def test_scores_of_unusual_data_are_in_range(sold: Callable[[], list[Line]], tmp_path: Path, till: Till) -> None:
    shop = create_shop(tmp_path / "home", till(*sold()))
    nightly_run.run_nightly(shop, progress=ignore_progress)
    scores = operations.load_table(shop, "scores")
    assert len(scores) == len({line[2] for line in sold()})
    probabilities = scores[["churn_probability", "p_purchase_7d", "p_purchase_14d", "p_purchase_28d"]].to_numpy(float)
    finite = probabilities[np.isfinite(probabilities)]
    assert len(finite) >= len(scores), "every customer has a churn probability"
    assert ((finite >= 0) & (finite <= 1)).all()
    assert (scores["next_purchase_days_p50"].dropna() >= 1).all(), "no purchase is predicted in the past"
    assert (scores["expected_value"].dropna() >= 0).all()
    assert np.isfinite(scores["churn_probability"].to_numpy(float)).all()
    assert {requirement["model"] for requirement in data_sufficiency.check_sufficiency(shop)} >= {
        "churn",
        "timing",
        "restock",
        "value",
        "season",
    }


def test_lines_without_an_amount_are_rejected_and_not_filled_in(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="Asia/Shanghai", currency="CNY", now="last-sale")
    summary = operations.load_records(
        shop, "transactions", [till(*((*line[:6], "", "") for line in one_visit_each()))], source="files"
    )
    assert summary["reasons"] == {"amount is empty": 30}
    with pytest.raises(NothingToDo, match="bought anything"):
        nightly_run.run_nightly(shop, progress=ignore_progress)
