"""Appeal: what an offer means to a customer, worked out by hand for a small shop."""

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
def figures() -> pd.DataFrame:
    shelf = {
        "product_keys": [MILK, BREAD, CHEESE],
        "weights_28d": [3.0, 1.0, 0.5],
        "weights_84d": [4.0, 2.0, 1.0],
        "weights_120d": [5.0, 3.0, 2.0],
        "times": [6, 3, 2],
        "last_days": [5, 2, 40],
    }
    row = {name: [np.array(values)] for name, values in shelf.items()}
    return pd.DataFrame({"customer_key": [7], "as_of": [AS_OF], **row, "response_rate": [0.3], "redeemed_rate": [0.4]})


def asked(*pairs: tuple[int, int], as_of: pd.Timestamp = AS_OF) -> pd.DataFrame:
    keys, offers = zip(*pairs, strict=True)
    return pd.DataFrame({"customer_key": keys, "as_of": [as_of] * len(keys), "offer_key": offers})


def test_an_offer_on_what_they_buy(figures) -> None:
    dairy, baker, cellar = affinity.build_affinity_features(
        figures, asked((7, DAIRY), (7, BAKER), (7, CELLAR)), COVERS, OFFERS, PRICES
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


def test_an_offer_stands_among_those_of_its_own_campaign(figures) -> None:
    apart = OFFERS.assign(campaign_id=["summer", "summer", None])
    dairy, baker, cellar = affinity.build_affinity_features(
        figures, asked((7, DAIRY), (7, BAKER), (7, CELLAR)), COVERS, apart, PRICES
    ).itertuples()
    assert [row.rivals for row in (dairy, baker, cellar)] == [2, 2, 1]
    assert [row.affinity_lead for row in (dairy, baker, cellar)] == pytest.approx([1, 2 / 5, 1])


def test_a_number_that_was_added_since_the_last_night_is_the_usual_one(figures) -> None:
    (dairy,) = affinity.build_affinity_features(
        figures.drop(columns="redeemed_rate"), asked((7, DAIRY)), COVERS, OFFERS, PRICES
    ).itertuples()
    assert dairy.redeemed_rate == affinity.RESPONSE_DEFAULTS["redeemed_rate"]


def test_a_product_never_bought_has_the_shops_price(figures) -> None:
    figures = figures.assign(product_keys=[np.array([MILK, 98, 99])])
    (cheese,) = affinity.build_affinity_features(
        figures, asked((7, DAIRY)), COVERS[COVERS.product_key == CHEESE], OFFERS, PRICES
    ).itertuples()
    assert (cheese.price, cheese.affinity_84d, cheese.products_share) == (4, 0, 0)
    assert np.isnan(cheese.last_days)


def test_of_somebody_unknown_nothing_is_assumed(figures) -> None:
    known, unknown = affinity.build_affinity_features(
        figures, asked((7, DAIRY), (8, DAIRY)), COVERS, OFFERS, PRICES
    ).itertuples()
    assert known.affinity_84d == 5
    assert (unknown.affinity_84d, unknown.times, unknown.shelf_weight, unknown.response_rate) == (0, 0, 0, 0.1)
    assert unknown.price == pytest.approx((1 + 4) / 2)


def test_each_moment_has_its_own_prices_and_shelves(figures) -> None:
    early = AS_OF - pd.Timedelta(days=10)
    before = figures.assign(as_of=early, weights_84d=[np.array([1.0, 0.0, 0.0])])
    wanted = pd.concat([asked((7, CELLAR)), asked((7, CELLAR), as_of=early)], ignore_index=True)
    now, then = affinity.build_affinity_features(
        pd.concat([figures, before]), wanted, COVERS, OFFERS, PRICES
    ).itertuples()
    assert (now.affinity_84d, then.affinity_84d) == (4, 1)
    assert (now.price, then.price) == (1, 9)


def test_the_order_and_index_of_the_question_are_kept(figures) -> None:
    wanted = asked((7, CELLAR), (8, BAKER), (7, DAIRY)).set_axis(list("abc"))
    found = affinity.build_affinity_features(figures, wanted, COVERS, OFFERS, PRICES)
    assert list(found.index) == list("abc")
    assert found.offer_key.tolist() == [CELLAR, BAKER, DAIRY]
    assert list(found.columns) == ["customer_key", "as_of", "offer_key", *affinity.COLUMNS]
    assert set(found[[*affinity.COLUMNS]].dtypes.astype(str)) == {"float64"}


def test_many_customers_in_turns_are_as_all_at_once(figures, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    many = pd.concat([figures.assign(customer_key=key) for key in range(30)], ignore_index=True)
    many["weights_84d"] = [rng.random(3) for _ in range(30)]
    pairs = [(key, offer) for key in range(35) for offer in (DAIRY, BAKER, CELLAR)]
    at_once = affinity.build_affinity_features(many, asked(*pairs), COVERS, OFFERS, PRICES)
    monkeypatch.setattr(affinity, "MAX_CELLS", 10)
    pd.testing.assert_frame_equal(
        affinity.build_affinity_features(many, asked(*pairs), COVERS, OFFERS, PRICES), at_once
    )


def test_an_offer_for_nothing_and_no_question_at_all(figures) -> None:
    nothing = affinity.build_affinity_features(figures, asked((7, DAIRY)), COVERS.head(0), OFFERS, PRICES.head(0)).iloc[
        0
    ]
    assert (nothing.affinity_84d, nothing.times, nothing.popularity) == (0, 0, 0)
    assert np.isnan(nothing.price)
    assert affinity.build_affinity_features(figures, asked((7, DAIRY)).head(0), COVERS, OFFERS, PRICES).empty


def test_prices_are_what_was_paid_before_the_moment(shop, ledger_kit, tmp_path) -> None:
    from features.snapshots import snapshot

    at = ledger_kit.at
    lines = [
        ledger_kit.line(1, at("2026-05-01 10:00"), 3.0, product_key=MILK, quantity=2.0),
        ledger_kit.line(2, at("2026-05-02 10:00"), 1.0, product_key=MILK),
        ledger_kit.line(2, at("2026-05-20 10:00"), 6.0, product_key=MILK, quantity=2.0),
        ledger_kit.line(2, at("2026-05-20 10:00"), None, product_key=WINE),
    ]
    early, now = at("2026-05-10 00:00"), at("2026-06-01 00:00")
    receipts = pd.DataFrame({"customer_key": [1], "event_timestamp": [early]})
    snapshot.write_snapshot(shop(lines), tmp_path, as_of=now, cutoffs=[now], timezone="UTC", customer_cutoffs=receipts)
    found = pd.read_parquet(tmp_path / "prices" / "part.parquet")
    rows = found[["product_key", "event_timestamp", "price", "sold"]].itertuples(index=False)
    first, second, third = (tuple(row) for row in rows)
    assert first == (MILK, early, 4 / 3, 2)
    assert second == (MILK, now, 10 / 5, 3)
    assert (third[0], np.isnan(third[2]), third[3]) == (WINE, True, 1)
