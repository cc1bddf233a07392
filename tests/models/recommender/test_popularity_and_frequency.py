"""A greengrocer with three customers: what sells to all, and what each comes back for."""

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


def shelf(customer: int, days: dict[int, list[int]], as_of: pd.Timestamp = NOW) -> dict:
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
            shelf(ANN, {APPLES: [1, 8, 15], BREAD: [1], CHEESE: [300]}),
            shelf(BOB, {BREAD: [7], CHEESE: [7]}),
            shelf(CLEO, {BREAD: [20], DATES: [84]}),
        ]
    )


def products(answer: pd.DataFrame, customer: int, name: str) -> list[int]:
    return answer.query("customer_key == @customer and list == @name").product_key.tolist()


def test_popularity_is_the_share_of_customers_who_bought_within_the_window(shop):
    keys, shares = Popularity.fit(shop, window_days=28).population_average()
    assert keys.tolist() == [BREAD, APPLES, CHEESE, DATES]
    assert shares.tolist() == pytest.approx([3 / 3, 1 / 3, 1 / 3, 0 / 3])


def test_popularity_gives_everybody_the_same_list_and_only_new_products_as_new(shop):
    answer = Popularity.fit(shop).score(shop)
    for customer in (ANN, BOB, CLEO):
        assert products(answer, customer, "any") == [BREAD, APPLES, CHEESE, DATES]
    assert products(answer, BOB, "new") == [APPLES, DATES]
    assert products(answer, CLEO, "again") == [BREAD, DATES]


def test_what_was_bought_more_often_and_more_lately_comes_first(shop):
    answer = DecayedFrequency.fit(shop).score(shop)
    assert products(answer, ANN, "again") == [APPLES, BREAD, CHEESE]
    assert products(answer, ANN, "any") == [APPLES, BREAD, CHEESE, DATES]
    assert products(answer, ANN, "new") == [DATES]


def test_products_of_equal_weight_are_ordered_by_how_well_they_sell(shop):
    assert products(DecayedFrequency.fit(shop).score(shop), BOB, "again") == [BREAD, CHEESE]


def test_without_outcomes_the_chance_is_that_of_a_poisson_process(shop):
    model = DecayedFrequency.fit(shop, window_days=28)
    answer = model.score(shop, lists=("again",)).query("customer_key == @CLEO and product_key == @DATES")
    weight = 0.5 ** (84 / 84)
    assert answer.score.item() == pytest.approx(1 - np.exp(-weight * np.log(2) / 84 * 28), abs=0.005)


def test_scores_never_rise_with_rank_even_where_bestsellers_fill_up(shop):
    for model in (Popularity.fit(shop), DecayedFrequency.fit(shop)):
        falls = model.score(shop).groupby(["customer_key", "list"]).score.apply(lambda s: s.is_monotonic_decreasing)
        assert falls.all()


def test_the_half_life_is_the_one_that_ranked_the_last_known_window_best():
    """Everybody drank tea a dozen times long ago, moved on to milk thrice lately, and buys milk next."""
    tea, milk = 7, 8
    then = NOW - pd.Timedelta(days=28)
    past = [shelf(key, {tea: list(range(100, 112)), milk: [1, 8, 15]}, then) for key in range(60)]
    now = [shelf(key, {tea: list(range(128, 140)), milk: [1, 29, 36]}) for key in range(60)]
    label = [np.array([milk])] * 60 + [None] * 60
    assert DecayedFrequency.fit(pd.DataFrame(past + now), label).half_life == 28
    other = [np.array([tea])] * 60 + [None] * 60
    assert DecayedFrequency.fit(pd.DataFrame(past + now), other).half_life == 84


def test_an_unknown_customer_gets_the_bestsellers(shop):
    stranger = pd.DataFrame([{**shelf(DAN, {}), "product_keys": None, "times": np.nan}])
    stranger["weights_28d"] = stranger["weights_84d"] = stranger["last_days"] = None
    answer = DecayedFrequency.fit(shop).score(stranger)
    assert products(answer, DAN, "any") == products(answer, DAN, "new") == [BREAD, APPLES, CHEESE, DATES]
    assert products(answer, DAN, "again") == []
    assert set(answer.source) == {"popular"}


def test_products_can_be_left_out_for_all_or_for_one_and_a_request_can_name_what_it_allows(shop):
    for model in (Popularity.fit(shop), DecayedFrequency.fit(shop)):
        assert BREAD not in set(model.score(shop, exclude={BREAD}).product_key)
        own = model.score(shop, exclude={ANN: {BREAD}})
        assert BREAD not in products(own, ANN, "any")
        assert BREAD in products(own, BOB, "any")
        assert set(model.score(shop, only=[CHEESE, DATES]).product_key) == {CHEESE, DATES}
        assert model.score(shop, exclude={APPLES, BREAD, CHEESE, DATES}).empty
        assert model.score(shop, only=[]).empty


def test_a_list_is_cut_at_n_and_ends_where_there_is_nothing_more(shop):
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


@pytest.mark.parametrize("own", [False, True])
def test_in_a_crowd_everybody_is_filled_up_with_the_first_that_they_may_have(own):
    """More customers than are filled up at a time; each by walking down the best sellers one by one."""
    rng = np.random.default_rng(3)
    sold = Bestsellers(rng.permutation(60), np.sort(rng.random(60))[::-1])
    bought = [rng.choice(60, rng.integers(0, 25), replace=False) for _ in range(4_100)]
    stock = purchase_history.read(pd.DataFrame({"customer_key": range(4_100), "product_keys": bought}), [])
    barred = {key: rng.choice(60, 5).tolist() for key in range(0, 4_100, 7)}
    rules = ranked_lists.ProductFilter(exclude=barred, only=range(0, 60, 2))
    wanted = rng.integers(0, 12, 4_100)
    taken = sold.fill(stock, rules, np.minimum(wanted, 2))
    picks = sold.fill(stock, rules, wanted, taken, include_owned=own)
    for row in (*range(0, 4_100, 150), 1_999, 2_000, 4_099):
        out = {*barred.get(row, ()), *taken.products[taken.rows == row], *(() if own else bought[row])}
        may = [key for key in sold.products if key % 2 == 0 and key not in out]
        assert picks.products[picks.rows == row].tolist() == may[: wanted[row]]
        assert picks.ranks[picks.rows == row].tolist() == [*range(min(len(may), wanted[row]))]


def test_what_is_saved_and_loaded_gives_the_same_answer(shop, tmp_path: Path):
    for place, model in enumerate((Popularity.fit(shop), DecayedFrequency.fit(shop))):
        (tmp_path / str(place)).mkdir()
        model.save(tmp_path / str(place))
        pd.testing.assert_frame_equal(type(model).load(tmp_path / str(place)).score(shop), model.score(shop))


def test_a_shop_where_nobody_bought_anything_has_too_little():
    with pytest.raises(base.InsufficientData):
        Popularity.fit(pd.DataFrame([shelf(ANN, {})]))


def test_a_frame_without_its_columns_says_which(shop):
    with pytest.raises(base.MissingFeatures, match="weights_84d"):
        DecayedFrequency.fit(shop).score(shop.drop(columns="weights_84d"))
    with pytest.raises(base.MissingFeatures, match="not aligned"):
        DecayedFrequency.fit(shop).score(shop.assign(weights_84d=[np.ones(1)] * 3))


def test_an_unknown_list_is_refused(shop):
    with pytest.raises(ValueError, match="any, again, new"):
        Popularity.fit(shop).score(shop, lists=("best",))


def test_capped_ndcg_is_what_the_arithmetic_says():
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


def test_a_curve_finds_how_often_things_of_a_strength_come_true():
    rng = np.random.default_rng(0)
    strength = rng.uniform(0, 1, 40_000)
    curve = isotonic_calibration.fit_isotonic(strength, rng.uniform(0, 1, 40_000) < strength**2)
    grid = np.linspace(0.1, 0.95, 18)
    assert np.abs(curve(grid) - grid**2).max() < 0.05
    assert (np.diff(curve(np.linspace(-1, 2, 300))) >= 0).all()
