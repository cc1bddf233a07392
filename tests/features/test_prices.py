"""Milk at full price and on offer: what it went for, as of two moments."""

import numpy as np
import pytest

from features import prices

MILK, CHEESE = 1, 2


def test_price_and_share_given_away_are_of_all_sales_before_the_moment_and_of_the_last_two_weeks(shop, paper) -> None:
    ledger = shop([
        paper.line(1, paper.at("2026-05-01 09:00"), 4.0, quantity=2.0, product_key=MILK),
        paper.line(2, paper.at("2026-05-20 09:00"), 1.0, discount=1.0, product_key=MILK),
        paper.line(2, paper.at("2026-05-21 09:00"), 9.0, product_key=CHEESE),
    ])  # fmt: skip
    early, late = paper.at("2026-05-20 00:00"), paper.at("2026-05-21 00:00")
    told = prices.deals(ledger, [early, late], as_of=late).set_index(["as_of", "product_key"])
    assert list(told.index) == [(early, MILK), (late, MILK)]
    assert told.loc[(early, MILK), ["price", "cut"]].tolist() == [4 / 2, 0 / 4]
    assert np.isnan(told.loc[(early, MILK), "cut_lately"])
    assert told.loc[(late, MILK), "price"] == pytest.approx((4 + 1) / 3)
    assert told.loc[(late, MILK), "cut"] == pytest.approx(1 / (5 + 1))
    assert told.loc[(late, MILK), "cut_lately"] == pytest.approx(1 / (1 + 1))


def test_a_sale_without_an_amount_and_a_return_say_nothing_of_prices(shop, paper) -> None:
    ledger = shop([
        paper.line(1, paper.at("2026-05-01 09:00"), None, product_key=MILK),
        paper.line(1, paper.at("2026-05-02 09:00"), -3.0, quantity=-1.0, kind="return", product_key=MILK),
    ])  # fmt: skip
    assert prices.deals(ledger, [paper.at("2026-05-03 00:00")], as_of=paper.at("2026-05-03 00:00")).empty
