"""What is kept of lists: a row for everybody who was asked about, also for who gets nothing."""

import json

import numpy as np
import pandas as pd

from serving.scoring import offers, recommender

ANN, BEN = 1, 2
SHELF = pd.DataFrame({"customer_key": [ANN, BEN]})
RANKED = pd.DataFrame(
    {"customer_key": [BEN, BEN], "list": ["any", "again"], "product_key": [7, 7], "score": [0.5, 0.5],
     "source": ["again", "again"], "because": [3, 3], "days": [1, 1], "since": [9, 9]}
)  # fmt: skip


def test_who_gets_nothing_has_empty_lists_in_place_of_older_ones() -> None:
    ann, ben = recommender.encode_lists(SHELF, RANKED, np.array([True, False]))
    assert ann[:2] == (ANN, None)
    assert json.loads(ann[2]) == {"any": [], "again": [], "new": [], "fallback": True}
    assert ben[:2] == (BEN, 0.5)
    assert json.loads(ben[2])["any"] == [[7, 0.5, "again", 3, 1, 9]]


def test_an_offer_keeps_what_it_goes_with_and_not_its_name() -> None:
    ranked = pd.DataFrame(
        {"customer_key": [ANN, BEN], "offer_key": [10, 10], "p": [0.25, 0.125], "expected_gain": [1.5, np.nan],
         "reason": ["not yet", "not yet"], "because": [7, np.nan], "days": [3, np.nan]}
    )  # fmt: skip
    ann, ben = offers.encode_offers(SHELF, ranked, np.array([False, False]))
    assert json.loads(ann[2])["items"] == [[10, 0.25, 1.5, [7, 3]]]
    assert json.loads(ben[2])["items"] == [[10, 0.125, None, "not yet"]]
