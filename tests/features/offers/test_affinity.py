"""Affinity of a customer for an offer, computed by hand for a small shop."""

import numpy as np
import pandas as pd
import pytest

from features.offers import affinity

AS_OF = pd.Timestamp("2026-07-01", tz="UTC")
MILK, CHEESE, BREAD, WINE = 1, 2, 3, 4
DAIRY, BAKER, CELLAR = 10, 20, 30
COVERS = pd.DataFrame(
    {"offer_key": [DAIRY, DAIRY, BAKER, CELLAR, CELLAR], "product_key": [MILK, CHEESE, BREAD, WINE, MILK]}
)
OFFERS = pd.DataFrame(
    {
        "offer_key": [DAIRY, BAKER, CELLAR],
        "campaign_id": ["summer", "summer", "summer"],
        "value": [0.5, 20.0, np.nan],
        "value_kind": ["amount", "percent", None],
    }
)
PRICES = pd.DataFrame(
    {
        "product_key": [MILK, CHEESE, BREAD, MILK],
        "event_timestamp": [AS_OF, AS_OF, AS_OF, AS_OF - pd.Timedelta(days=30)],
        "price": [1.0, 4.0, 2.0, 9.0],
        "sold": [60.0, 20.0, 20.0, 1.0],
    }
)


@pytest.fixture
def customer_features() -> pd.DataFrame:
    history = {
        "product_keys": [MILK, BREAD, CHEESE],
        "weights_28d": [3.0, 1.0, 0.5],
        "weights_84d": [4.0, 2.0, 1.0],
        "weights_120d": [5.0, 3.0, 2.0],
        "times": [6, 3, 2],
        "last_days": [5, 2, 40],
    }
    row = {name: [np.array(values)] for name, values in history.items()}
    return pd.DataFrame({"customer_key": [7], "as_of": [AS_OF], **row, "response_rate": [0.3], "redeemed_rate": [0.4]})


def offer_pairs(*pairs: tuple[int, int], as_of: pd.Timestamp = AS_OF) -> pd.DataFrame:
    keys, offers = zip(*pairs, strict=True)
    return pd.DataFrame({"customer_key": keys, "as_of": [as_of] * len(keys), "offer_key": offers})


def test_an_offer_on_products_that_the_customer_buys(customer_features) -> None:
    dairy, baker, cellar = affinity.build_affinity_features(
        customer_features, offer_pairs((7, DAIRY), (7, BAKER), (7, CELLAR)), COVERS, OFFERS, PRICES
    ).itertuples()
    assert (dairy.affinity_84d, dairy.affinity_120d) == (4 + 1, 5 + 2)
    assert (dairy.times, dairy.last_days, dairy.products_share, cellar.products_share) == (6 + 2, 5, 2 / 2, 1 / 2)
    assert dairy.affinity_share == pytest.approx(5 / 7)
    assert [row.affinity_lead for row in (dairy, baker, cellar)] == pytest.approx([1, 2 / 5, 4 / 5])
    assert (dairy.rivals, dairy.shelf_weight, dairy.shelf_weight_28d) == (3, 4 + 2 + 1, 3 + 1 + 0.5)
    assert dairy.popularity == pytest.approx((60 + 20) / 100)
    price = (4 * 1.0 + 1 * 4.0) / 5
    assert dairy.price == pytest.approx(price)
    assert dairy.discount == pytest.approx(0.5 / price)
    assert (baker.discount, np.isnan(cellar.discount)) == (0.2, True)
    assert (dairy.response_rate, dairy.redeemed_rate) == (0.3, 0.4)


def test_an_offer_is_compared_with_those_of_its_own_campaign(customer_features) -> None:
    two_campaigns = OFFERS.assign(campaign_id=["summer", "summer", None])
    dairy, baker, cellar = affinity.build_affinity_features(
        customer_features, offer_pairs((7, DAIRY), (7, BAKER), (7, CELLAR)), COVERS, two_campaigns, PRICES
    ).itertuples()
    assert [row.rivals for row in (dairy, baker, cellar)] == [2, 2, 1]
    assert [row.affinity_lead for row in (dairy, baker, cellar)] == pytest.approx([1, 2 / 5, 1])


def test_a_feature_missing_from_an_older_snapshot_takes_its_default(customer_features) -> None:
    (dairy,) = affinity.build_affinity_features(
        customer_features.drop(columns="redeemed_rate"), offer_pairs((7, DAIRY)), COVERS, OFFERS, PRICES
    ).itertuples()
    assert dairy.redeemed_rate == affinity.RESPONSE_DEFAULTS["redeemed_rate"]


def test_a_product_never_bought_has_the_shops_price(customer_features) -> None:
    longer_history = customer_features.assign(product_keys=[np.array([MILK, 98, 99])])
    (cheese,) = affinity.build_affinity_features(
        longer_history, offer_pairs((7, DAIRY)), COVERS[COVERS.product_key == CHEESE], OFFERS, PRICES
    ).itertuples()
    assert (cheese.price, cheese.affinity_84d, cheese.products_share) == (4, 0, 0)
    assert np.isnan(cheese.last_days)


def test_an_unknown_customer_has_default_features(customer_features) -> None:
    listed, unlisted = affinity.build_affinity_features(
        customer_features, offer_pairs((7, DAIRY), (8, DAIRY)), COVERS, OFFERS, PRICES
    ).itertuples()
    assert listed.affinity_84d == 5
    assert (unlisted.affinity_84d, unlisted.times, unlisted.shelf_weight, unlisted.response_rate) == (0, 0, 0, 0.1)
    assert unlisted.price == pytest.approx((1 + 4) / 2)


def test_each_as_of_has_its_own_prices_and_histories(customer_features) -> None:
    early = AS_OF - pd.Timedelta(days=10)
    before = customer_features.assign(as_of=early, weights_84d=[np.array([1.0, 0.0, 0.0])])
    requested = pd.concat([offer_pairs((7, CELLAR)), offer_pairs((7, CELLAR), as_of=early)], ignore_index=True)
    now, then = affinity.build_affinity_features(
        pd.concat([customer_features, before]), requested, COVERS, OFFERS, PRICES
    ).itertuples()
    assert (now.affinity_84d, then.affinity_84d) == (4, 1)
    assert (now.price, then.price) == (1, 9)


def test_features_have_the_order_and_index_of_the_requested_pairs(customer_features) -> None:
    requested = offer_pairs((7, CELLAR), (8, BAKER), (7, DAIRY)).set_axis(list("abc"))
    features = affinity.build_affinity_features(customer_features, requested, COVERS, OFFERS, PRICES)
    assert list(features.index) == list("abc")
    assert features.offer_key.tolist() == [CELLAR, BAKER, DAIRY]
    assert list(features.columns) == ["customer_key", "as_of", "offer_key", *affinity.COLUMNS]
    assert set(features[[*affinity.COLUMNS]].dtypes.astype(str)) == {"float64"}


def test_many_customers_in_batches_are_as_all_at_once(customer_features, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    many_customers = pd.concat([customer_features.assign(customer_key=key) for key in range(30)], ignore_index=True)
    many_customers["weights_84d"] = [rng.random(3) for _ in range(30)]
    pairs = [(key, offer) for key in range(35) for offer in (DAIRY, BAKER, CELLAR)]
    at_once = affinity.build_affinity_features(many_customers, offer_pairs(*pairs), COVERS, OFFERS, PRICES)
    monkeypatch.setattr(affinity, "MAX_CELLS", 10)
    pd.testing.assert_frame_equal(
        affinity.build_affinity_features(many_customers, offer_pairs(*pairs), COVERS, OFFERS, PRICES), at_once
    )


def test_an_offer_without_products_and_an_empty_request(customer_features) -> None:
    uncovered = affinity.build_affinity_features(
        customer_features, offer_pairs((7, DAIRY)), COVERS.head(0), OFFERS, PRICES.head(0)
    ).iloc[0]
    assert (uncovered.affinity_84d, uncovered.times, uncovered.popularity) == (0, 0, 0)
    assert np.isnan(uncovered.price)
    assert affinity.build_affinity_features(
        customer_features, offer_pairs((7, DAIRY)).head(0), COVERS, OFFERS, PRICES
    ).empty


def test_prices_are_what_was_paid_before_the_cutoff(make_ledger, ledger_kit, tmp_path) -> None:
    from features.snapshots import snapshot

    at = ledger_kit.at
    lines = [
        ledger_kit.line(1, at("2026-05-01 10:00"), 3.0, product_key=MILK, quantity=2.0),
        ledger_kit.line(2, at("2026-05-02 10:00"), 1.0, product_key=MILK),
        ledger_kit.line(2, at("2026-05-20 10:00"), 6.0, product_key=MILK, quantity=2.0),
        ledger_kit.line(2, at("2026-05-20 10:00"), None, product_key=WINE),
    ]
    early, now = at("2026-05-10 00:00"), at("2026-06-01 00:00")
    customer_cutoffs = pd.DataFrame({"customer_key": [1], "event_timestamp": [early]})
    snapshot.write_snapshot(
        make_ledger(lines), tmp_path, as_of=now, cutoffs=[now], timezone="UTC", customer_cutoffs=customer_cutoffs
    )
    features = pd.read_parquet(tmp_path / "prices" / "part.parquet")
    price_rows = features[["product_key", "event_timestamp", "price", "sold"]].itertuples(index=False)
    first, second, third = (tuple(row) for row in price_rows)
    assert first == (MILK, early, 4 / 3, 2)
    assert second == (MILK, now, 10 / 5, 3)
    assert (third[0], np.isnan(third[2]), third[3]) == (WINE, True, 1)
