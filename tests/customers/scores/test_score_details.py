"""The codec of stored details: every question is written and read again, and the JSON stays as it was."""

import json

import numpy as np
import pandas as pd

from customers.scores import score_details

ANN, BEN = 1, 2
NO_FALLBACK = np.array([False, False])


def test_churn_keeps_band_reasons_and_weights() -> None:
    ann, ben = score_details.encode_churn(
        [ANN, BEN],
        np.array([0.25, 0.5]),
        horizon_days=28,
        bands=["medium", "high"],
        reasons=[[("bought only once", 0.1234), ("yet spends more", -0.2)], []],
        rfm_codes=["511", None],
        fallback=np.array([False, True]),
    )
    assert ann == (
        ANN,
        0.25,
        '{"horizon_days":28,"band":"medium","reasons":["bought only once","yet spends more"],"weights":[0.12,-0.2],'
        '"rfm":"511","fallback":false}',
    )
    detail = score_details.decode_churn(ben[2])
    assert (detail.band, detail.reasons, detail.rfm, detail.fallback) == ("high", [], None, True)
    assert detail.to_fields() == json.loads(ben[2])
    assert list(detail.to_fields()) == list(json.loads(ben[2]))


def test_a_churn_detail_of_an_older_version_shows_what_it_has() -> None:
    detail = score_details.decode_churn('{"horizon_days":28,"band":"low","reasons":["overdue"]}')
    assert detail.to_fields() == {"horizon_days": 28, "band": "low", "reasons": ["overdue"], "rfm": None}


def test_timing_keeps_windows_quantiles_and_the_curve() -> None:
    (row,) = score_details.encode_timing(
        [ANN],
        np.array([[0.1234567, 0.6]]),
        median_days=np.array([2]),
        probabilities_within={1: [0.1234567], 7: [None]},
        quantile_days={"p10": [1], "p50": [2], "p90": [None]},
        fallback=NO_FALLBACK[:1],
    )
    assert row == (
        ANN,
        2.0,
        '{"p":{"1":0.1234567,"7":null},"days":{"p10":1,"p50":2,"p90":null},"cdf":[0.123457,0.6],"fallback":false}',
    )
    detail = score_details.decode_timing(row[2])
    assert (detail.probability_within(1), detail.probability_within(7), detail.probability_within(14)) == (
        0.1234567,
        None,
        None,
    )
    assert (detail.quantile_days("p50"), detail.quantile_days("p90")) == (2, None)
    assert detail.cdf == [0.123457, 0.6]
    assert list(detail.to_fields()) == ["p", "days", "fallback"]


def test_value_keeps_its_horizon() -> None:
    (row,) = score_details.encode_value([ANN], np.array([9.5]), horizon_days=90, fallback=NO_FALLBACK[:1])
    assert row == (ANN, 9.5, '{"horizon_days":90,"fallback":false}')
    assert score_details.decode_value(row[2]).to_fields() == {"horizon_days": 90, "fallback": False}


def test_a_customer_without_products_gets_empty_lists_in_place_of_older_ones() -> None:
    ranked = pd.DataFrame(
        {
            "customer_key": [BEN, BEN],
            "list": ["any", "again"],
            "product_key": [7, 7],
            "score": [0.5, 0.5],
            "source": ["again", "again"],
        }
    )
    evidence = [[3, 1, 9], []]
    ann, ben = score_details.encode_recommender([ANN, BEN], ranked, evidence, fallback=np.array([True, False]))
    assert ann == (ANN, None, '{"any":[],"again":[],"new":[],"fallback":true}')
    assert ben == (BEN, 0.5, '{"any":[[7,0.5,"again",3,1,9]],"again":[[7,0.5,"again"]],"new":[],"fallback":false}')
    detail = score_details.decode_recommender(ben[2])
    assert [*detail.iter_products("any")] == [score_details.StoredProduct(1, 7, 0.5, "again", [3, 1, 9])]
    assert [*detail.iter_products("again")] == [score_details.StoredProduct(1, 7, 0.5, "again", [])]
    assert [*detail.iter_products("new")] == []


def test_an_offer_keeps_the_product_that_it_complements_and_not_its_name() -> None:
    ranked = pd.DataFrame(
        {
            "customer_key": [ANN, BEN],
            "offer_key": [10, 10],
            "p": [0.25, 0.125],
            "expected_gain": [1.5, np.nan],
            "reason": ["not yet", "not yet"],
            "evidence_key": [7, np.nan],
            "days": [3, np.nan],
        }
    )
    ann, ben, cora = score_details.encode_offers([ANN, BEN, 3], ranked, fallback=np.array([False, False, True]))
    assert ann == (ANN, 0.25, '{"items":[[10,0.25,1.5,[7,3]]],"fallback":false}')
    assert [*score_details.decode_offers(ben[2]).iter_offers()] == [
        score_details.StoredOffer(10, 0.125, None, "not yet")
    ]
    assert cora == (3, None, '{"items":[],"fallback":true}')


def test_restock_keeps_three_probabilities_and_the_median_wait() -> None:
    items = pd.DataFrame(
        [(ANN, "tea", 0.3, 0.5, 0.75, 14.0), (ANN, "milk", 0.01, 0.02, 0.04, np.nan)],
        columns=[*score_details.RESTOCK_COLUMNS],
    )
    ann, ben = score_details.encode_restock([ANN, BEN], items, fallback=np.array([False, True]))
    assert ann == (ANN, 0.5, '{"items":[["tea",0.3,0.5,0.75,14],["milk",0.01,0.02,0.04,null]],"fallback":false}')
    assert [*score_details.decode_restock(ann[2]).iter_categories()] == [
        score_details.StoredReplenishment("tea", 0.3, 0.5, 0.75, 14),
        score_details.StoredReplenishment("milk", 0.01, 0.02, 0.04, None),
    ]
    assert ben == (BEN, None, '{"items":[],"fallback":true}')


def test_uplift_keeps_the_outcome_that_contact_raises() -> None:
    (row,) = score_details.encode_uplift([(ANN, 0.02)], outcome="return", days=28)
    assert row == (ANN, 0.02, '{"outcome": "return", "days": 28}')
    assert score_details.decode_uplift(row[2]) == score_details.UpliftDetail("return", 28)


def test_a_detail_without_text_is_empty() -> None:
    for decode in score_details.DECODERS.values():
        assert decode(None) == decode("{}")
