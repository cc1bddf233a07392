"""Popularity and decayed frequency, on a greengrocer with three customers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models import base
from models.estimators import isotonic_calibration
from models.recommender import purchase_history, ranked_lists
from models.recommender.decayed_frequency import DecayedFrequency
from models.recommender.popularity import Bestsellers, Popularity

APPLES, BREAD, CHEESE, DATES = 1, 2, 3, 4
ANN, BOB, CLEO, DAN = 11, 22, 33, 44
NOW = pd.Timestamp("2017-12-04", tz="UTC")


def history_row(customer: int, days: dict[int, list[int]], as_of: pd.Timestamp = NOW) -> dict:
    """A row of the frame: for each product, how many days ago it was bought."""
    row: dict = {"customer_key": customer, "as_of": as_of, "product_keys": np.array(list(days), np.int64)}
    for half_life in (28, 84):
        row[f"weights_{half_life}d"] = np.array(
            [sum(0.5 ** (age / half_life) for age in ages) for ages in days.values()], np.float32
        )
    row["times"] = np.array([len(ages) for ages in days.values()], np.int64)
    row["last_days"] = np.array([min(ages) for ages in days.values()], np.int64)
    return row


@pytest.fixture
def shop() -> pd.DataFrame:
    return pd.DataFrame(
        [
            history_row(ANN, {APPLES: [1, 8, 15], BREAD: [1], CHEESE: [300]}),
            history_row(BOB, {BREAD: [7], CHEESE: [7]}),
            history_row(CLEO, {BREAD: [20], DATES: [84]}),
        ]
    )


def products(recommended: pd.DataFrame, customer: int, name: str) -> list[int]:
    return recommended.query("customer_key == @customer and list == @name").product_key.tolist()


def test_popularity_is_the_share_of_customers_who_bought_within_the_window(shop):
    keys, shares = Popularity.fit(shop, window_days=28).population_average()
    assert keys.tolist() == [BREAD, APPLES, CHEESE, DATES]
    assert shares.tolist() == pytest.approx([3 / 3, 1 / 3, 1 / 3, 0 / 3])


def test_popularity_gives_all_customers_the_same_list_and_only_new_products_as_new(shop):
    recommended = Popularity.fit(shop).score(shop)
    for customer in (ANN, BOB, CLEO):
        assert products(recommended, customer, "any") == [BREAD, APPLES, CHEESE, DATES]
    assert products(recommended, BOB, "new") == [APPLES, DATES]
    assert products(recommended, CLEO, "again") == [BREAD, DATES]


def test_products_bought_more_often_and_more_recently_come_first(shop):
    recommended = DecayedFrequency.fit(shop).score(shop)
    assert products(recommended, ANN, "again") == [APPLES, BREAD, CHEESE]
    assert products(recommended, ANN, "any") == [APPLES, BREAD, CHEESE, DATES]
    assert products(recommended, ANN, "new") == [DATES]


def test_products_of_equal_weight_are_ordered_by_how_well_they_sell(shop):
    assert products(DecayedFrequency.fit(shop).score(shop), BOB, "again") == [BREAD, CHEESE]


def test_without_outcomes_the_probability_is_that_of_a_poisson_process(shop):
    model = DecayedFrequency.fit(shop, window_days=28)
    recommended = model.score(shop, lists=("again",)).query("customer_key == @CLEO and product_key == @DATES")
    weight = 0.5 ** (84 / 84)
    assert recommended.score.item() == pytest.approx(1 - np.exp(-weight * np.log(2) / 84 * 28), abs=0.005)


def test_scores_never_rise_with_rank_even_where_bestsellers_fill_a_list(shop):
    for model in (Popularity.fit(shop), DecayedFrequency.fit(shop)):
        is_falling = (
            model.score(shop).groupby(["customer_key", "list"]).score.apply(lambda s: s.is_monotonic_decreasing)
        )
        assert is_falling.all()


def test_the_half_life_is_the_one_that_ranked_the_last_complete_window_best():
    """All bought tea a dozen times long ago and milk three times recently, and buy milk next."""
    tea, milk = 7, 8
    cutoff = NOW - pd.Timedelta(days=28)
    earlier = [history_row(key, {tea: list(range(100, 112)), milk: [1, 8, 15]}, cutoff) for key in range(60)]
    current = [history_row(key, {tea: list(range(128, 140)), milk: [1, 29, 36]}) for key in range(60)]
    label = [np.array([milk])] * 60 + [None] * 60
    assert DecayedFrequency.fit(pd.DataFrame(earlier + current), label).half_life == 28
    tea_label = [np.array([tea])] * 60 + [None] * 60
    assert DecayedFrequency.fit(pd.DataFrame(earlier + current), tea_label).half_life == 84


def test_an_unknown_customer_gets_the_bestsellers(shop):
    unknown = pd.DataFrame([{**history_row(DAN, {}), "product_keys": None, "times": np.nan}])
    unknown["weights_28d"] = unknown["weights_84d"] = unknown["last_days"] = None
    recommended = DecayedFrequency.fit(shop).score(unknown)
    assert products(recommended, DAN, "any") == products(recommended, DAN, "new") == [BREAD, APPLES, CHEESE, DATES]
    assert products(recommended, DAN, "again") == []
    assert set(recommended.source) == {"popular"}


def test_products_can_be_excluded_for_all_or_one_customer_or_limited_to_an_allowed_set(shop):
    for model in (Popularity.fit(shop), DecayedFrequency.fit(shop)):
        assert BREAD not in set(model.score(shop, exclude={BREAD}).product_key)
        excluded_for_one = model.score(shop, exclude={ANN: {BREAD}})
        assert BREAD not in products(excluded_for_one, ANN, "any")
        assert BREAD in products(excluded_for_one, BOB, "any")
        assert set(model.score(shop, only=[CHEESE, DATES]).product_key) == {CHEESE, DATES}
        assert model.score(shop, exclude={APPLES, BREAD, CHEESE, DATES}).empty
        assert model.score(shop, only=[]).empty


def test_a_list_is_cut_at_n_and_ends_where_no_product_remains(shop):
    model = DecayedFrequency.fit(shop)
    assert model.score(shop, n=0).empty
    assert model.score(shop, n=2).groupby(["customer_key", "list"]).size().max() == 2
    assert model.score(shop, n=10_000).query("list == 'any'").groupby("customer_key").size().tolist() == [
        4,
        4,
        4,
    ]
    assert model.score(shop.iloc[:0]).columns.tolist() == [
        "customer_key", "list", "rank", "product_key", "score", "source",
    ]  # fmt: skip


@pytest.mark.parametrize("include_owned", [False, True])
def test_in_a_large_batch_each_list_is_filled_with_the_first_allowed_bestsellers(include_owned):
    """More customers than are filled in one batch; expected lists go down the bestsellers one by one."""
    rng = np.random.default_rng(3)
    bestsellers = Bestsellers(rng.permutation(60), np.sort(rng.random(60))[::-1])
    bought = [rng.choice(60, rng.integers(0, 25), replace=False) for _ in range(4_100)]
    history = purchase_history.read(pd.DataFrame({"customer_key": range(4_100), "product_keys": bought}), [])
    excluded = {key: rng.choice(60, 5).tolist() for key in range(0, 4_100, 7)}
    product_filter = ranked_lists.ProductFilter(exclude=excluded, only=range(0, 60, 2))
    list_lengths = rng.integers(0, 12, 4_100)
    first_picks = bestsellers.fill(history, product_filter, np.minimum(list_lengths, 2))
    picks = bestsellers.fill(history, product_filter, list_lengths, first_picks, include_owned=include_owned)
    for row in (*range(0, 4_100, 150), 1_999, 2_000, 4_099):
        not_allowed = {
            *excluded.get(row, ()),
            *first_picks.products[first_picks.rows == row],
            *(() if include_owned else bought[row]),
        }
        allowed = [key for key in bestsellers.products if key % 2 == 0 and key not in not_allowed]
        assert picks.products[picks.rows == row].tolist() == allowed[: list_lengths[row]]
        assert picks.ranks[picks.rows == row].tolist() == [*range(min(len(allowed), list_lengths[row]))]


def test_a_saved_model_gives_the_same_lists(shop, tmp_path: Path):
    for place, model in enumerate((Popularity.fit(shop), DecayedFrequency.fit(shop))):
        (tmp_path / str(place)).mkdir()
        model.save(tmp_path / str(place))
        pd.testing.assert_frame_equal(type(model).load(tmp_path / str(place)).score(shop), model.score(shop))


def test_a_shop_without_purchases_is_refused():
    with pytest.raises(base.InsufficientData):
        Popularity.fit(pd.DataFrame([history_row(ANN, {})]))


def test_a_frame_without_a_column_is_refused_by_name(shop):
    with pytest.raises(base.MissingFeatures, match="weights_84d"):
        DecayedFrequency.fit(shop).score(shop.drop(columns="weights_84d"))
    with pytest.raises(base.MissingFeatures, match="not aligned"):
        DecayedFrequency.fit(shop).score(shop.assign(weights_84d=[np.ones(1)] * 3))


def test_an_unknown_list_is_refused(shop):
    with pytest.raises(ValueError, match="any, again, new"):
        Popularity.fit(shop).score(shop, lists=("best",))


def test_capped_ndcg_by_hand():
    """One customer bought two products; the list of ten has one of them in the second place."""
    bought = purchase_history.read_label([np.array([APPLES, DATES]), None])
    picks = ranked_lists.RankedProducts(
        np.array([0, 0]),
        np.array([BREAD, APPLES]),
        np.array([0.9, 0.8]),
        np.zeros(2, np.int8),
        np.array([0, 1]),
    )
    assert ranked_lists.ndcg(picks, bought) == pytest.approx((1 / np.log2(3)) / (1 / np.log2(2) + 1 / np.log2(3)))


def test_an_isotonic_curve_finds_the_purchase_rate_at_each_score():
    rng = np.random.default_rng(0)
    score = rng.uniform(0, 1, 40_000)
    curve = isotonic_calibration.fit_isotonic(score, rng.uniform(0, 1, 40_000) < score**2)
    grid = np.linspace(0.1, 0.95, 18)
    assert np.abs(curve(grid) - grid**2).max() < 0.05
    assert (np.diff(curve(np.linspace(-1, 2, 300))) >= 0).all()
