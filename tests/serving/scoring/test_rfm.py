"""Three digits place a customer among the others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from serving.scoring import rfm

NIGHT = datetime(2025, 3, 1, tzinfo=UTC)
#: A hundred customers: the first came today, once, for 1; the last 99 days ago, a hundred times, for 100.
HUNDRED = pd.DataFrame(
    {
        "recency_days": np.arange(100.0),
        "purchase_days": np.arange(1.0, 101),
        "spend_total": np.arange(1.0, 101),
    }
)


def test_each_digit_is_a_fifth_of_the_customers() -> None:
    digits = pd.Series(rfm.rfm_codes(HUNDRED, rfm.compute_quintiles(HUNDRED, NIGHT)))
    assert digits.iloc[0] == "511"
    assert digits.iloc[-1] == "155"
    assert (digits.str[0].value_counts() == 20).all()


def test_one_customer_alone_is_placed_by_the_lines_of_the_night(tmp_path: Path) -> None:
    rfm.save_quintiles(tmp_path, rfm.compute_quintiles(HUNDRED, NIGHT))
    lines = rfm.load_quintiles(tmp_path)
    assert lines
    assert rfm.rfm_codes(HUNDRED.iloc[[50]], lines) == ["333"]


def test_a_replay_does_not_move_the_lines(tmp_path: Path) -> None:
    rfm.save_quintiles(tmp_path, rfm.compute_quintiles(HUNDRED, NIGHT))
    rfm.save_quintiles(tmp_path, rfm.compute_quintiles(HUNDRED * 2, NIGHT - timedelta(days=30)))
    assert rfm.load_quintiles(tmp_path) == rfm.compute_quintiles(HUNDRED, NIGHT)


def test_who_never_bought_has_no_digits() -> None:
    nobody = pd.DataFrame({name: [np.nan] for name in rfm.RFM_COLUMNS})
    assert rfm.rfm_codes(nobody, rfm.compute_quintiles(HUNDRED, NIGHT)) == [None]


def test_before_the_first_night_there_are_no_lines(tmp_path: Path) -> None:
    assert rfm.load_quintiles(tmp_path) is None
