"""The recommender, on a shop with four segments of customers, each with a dozen products of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

from models import arrays, base
from models.recommender import (
    candidate_ranking,
    discovery,
    matrix_factorisation,
    purchase_history,
    ranked_lists,
    ranking_features,
)
from models.recommender import model as recommender_model
from models.recommender.decayed_frequency import DecayedFrequency
from models.recommender.model import Recommender
from models.recommender.repeat_purchases import RepeatPurchases

SEGMENTS, EACH, CUSTOMERS = 4, 12, 240
WINDOW = 28
OPENING = pd.Timestamp("2017-01-01", tz="UTC")
CUTOFFS = [112, 140, 168, 196]
FIRST_KEY = 9_000_000_000


def product_segment(product_key: int) -> int:
    """Products 100-111 are those of the first segment, 200-211 of the second, and so on; 1 is bread, for all."""
    return product_key // 100 - 1


@pytest.fixture(scope="module")
def sales() -> pd.DataFrame:
    """Each customer has five favourites of their segment, and buys another product now and then."""
    rng = np.random.default_rng(7)
    rows = []
    for customer in range(CUSTOMERS):
        own = 100 * (customer % SEGMENTS + 1) + rng.permutation(EACH)
        probabilities = np.append([0.8, 0.6, 0.45, 0.3, 0.2], np.full(EACH - 5, 0.02))
        for day in np.flatnonzero(rng.random(CUTOFFS[-1] + WINDOW) < 1 / 7):
            rows += [(customer, int(product), int(day)) for product in own[rng.random(EACH) < probabilities]]
            rows += [(customer, 1, int(day))] if rng.random() < 0.3 else []
    return pd.DataFrame(rows, columns=["customer", "product", "day"])


def purchase_histories(sales: pd.DataFrame, cutoff: int) -> pd.DataFrame:
    """The purchase history of every customer as of a day: one row per customer."""
    earlier = sales[sales.day < cutoff].assign(age=lambda rows: cutoff - rows.day)
    for half_life in (28, 56, 84, 120):
        earlier[f"weights_{half_life}d"] = 0.5 ** (earlier.age / half_life)
    bought = earlier.groupby(["customer", "product"]).agg(
        times=("age", "size"),
        last_days=("age", "min"),
        first_days=("age", "max"),
        **{f"weights_{days}d": (f"weights_{days}d", "sum") for days in (28, 56, 84, 120)},
    )
    lists = bought.reset_index("product").groupby("customer").agg(list)
    lists = lists.reindex(range(CUSTOMERS)).rename(columns={"product": "product_keys"})
    keys = {"customer_key": FIRST_KEY + lists.index, "as_of": OPENING + pd.Timedelta(days=cutoff)}
    return lists.assign(**keys).reset_index(drop=True)


def window_purchases(sales: pd.DataFrame, cutoff: int) -> list[np.ndarray]:
    later = sales[(sales.day >= cutoff) & (sales.day < cutoff + WINDOW)]
    bought = later.groupby("customer")["product"].unique()
    return [np.asarray(bought.get(customer, []), np.int64) for customer in range(CUSTOMERS)]


@pytest.fixture(scope="module")
def training_rows(sales) -> tuple[pd.DataFrame, list]:
    """Purchase histories and labels of four cutoffs; the label of the last one is not known yet."""
    frame = pd.concat([purchase_histories(sales, cutoff) for cutoff in CUTOFFS], ignore_index=True)
    return frame, [row for cutoff in CUTOFFS[:-1] for row in window_purchases(sales, cutoff)] + [None] * CUSTOMERS


@pytest.fixture(scope="module")
def current(sales) -> pd.DataFrame:
    return purchase_histories(sales, CUTOFFS[-1])


@pytest.fixture(scope="module")
def model(training_rows) -> Recommender:
    return Recommender.fit(*training_rows)


@pytest.fixture(scope="module")
def recommended(model, current) -> pd.DataFrame:
    return model.score(current)


def test_new_products_are_of_the_customers_own_segment_while_some_remain(recommended, current):
    own_bought = [sum(product != 1 for product in products) for products in current.product_keys]
    remaining = EACH - pd.Series(own_bought, index=current.customer_key)
    new = recommended[(recommended.list == "new") & (recommended.product_key != 1)]
    first = new[new["rank"] <= new.customer_key.map(remaining).clip(upper=3)]
    assert len(first) > CUSTOMERS
    assert (first.product_key.map(product_segment) == (first.customer_key - FIRST_KEY) % SEGMENTS).all()


def test_new_products_were_never_bought_and_again_products_were(recommended, current):
    bought = {
        (key, product)
        for key, products in zip(current.customer_key, current.product_keys, strict=True)
        for product in products
    }
    pairs = list(zip(recommended.customer_key, recommended.product_key, strict=True))
    is_owned = pd.Series([pair in bought for pair in pairs])
    assert not is_owned[recommended.list == "new"].any()
    assert is_owned[recommended.list == "again"].all()
    assert (is_owned == (recommended.source == "again"))[recommended.list == "any"].all()


def test_lists_hold_each_product_once_with_ranks_from_one_and_falling_scores(recommended):
    assert not recommended.duplicated(["customer_key", "list", "product_key"]).any()
    groups = recommended.groupby(["customer_key", "list"])
    assert (recommended["rank"] == groups.cumcount() + 1).all()
    assert groups.score.apply(lambda scores: scores.is_monotonic_decreasing).all()
    assert recommended.score.between(0, 1).all()


def test_the_list_of_any_products_is_not_worse_than_decayed_frequency(recommended, training_rows, current, sales):
    baseline = DecayedFrequency.fit(*training_rows).score(current, lists=("any",))
    actual = purchase_history.read_label(window_purchases(sales, CUTOFFS[-1]))
    assert ndcg(recommended[recommended.list == "any"], actual) >= ndcg(baseline, actual)


def ndcg(recommended: pd.DataFrame, actual: purchase_history.WindowPurchases) -> float:
    rows = (recommended.customer_key - FIRST_KEY).to_numpy()
    ranked = ranked_lists.RankedProducts(
        rows,
        recommended.product_key.to_numpy(),
        recommended.score.to_numpy(),
        np.zeros(len(rows), np.int8),
        recommended["rank"].to_numpy() - 1,
    )
    return ranked_lists.ndcg(ranked, actual)


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_a_score_is_the_purchase_rate_in_the_window_that_followed(name, recommended, sales):
    actual = purchase_history.read_label(window_purchases(sales, CUTOFFS[-1]))
    top = recommended[(recommended.list == name) & (recommended["rank"] <= 5)]
    is_bought = actual.contains((top.customer_key - FIRST_KEY).to_numpy(), top.product_key.to_numpy())
    assert top.score.mean() == pytest.approx(is_bought.mean(), abs=0.06)


def test_folding_in_a_customer_gives_the_factors_of_the_factorisation(current):
    factorisation = matrix_factorisation.factorise(
        current, seed=0, window_days=WINDOW, factors=12, iterations=30, threads=1
    )
    history = purchase_history.read(current, ["weights_120d"])
    reference = AlternatingLeastSquares(
        factors=12, regularization=factorisation.regularisation, iterations=30, num_threads=1, random_state=0
    )
    positions, is_sold = arrays.find_positions(factorisation.products, history.products)
    shape = (len(history), len(factorisation.products))
    bought = csr_matrix(
        (history.weights(120)[is_sold].astype(np.float32), (history.rows[is_sold], positions[is_sold])), shape=shape
    )
    reference.fit(bought, show_progress=False)
    folded = factorisation.fold_in(history)
    np.testing.assert_allclose(folded, reference.recalculate_user(np.arange(len(history)), bought), atol=1e-4)
    scores, reference_scores = (side @ factorisation.factors.T for side in (folded, reference.user_factors))
    assert np.corrcoef(scores.ravel(), reference_scores.ravel())[0, 1] > 0.999


def unknown_customer(products: list[int]) -> pd.DataFrame:
    """A customer unknown to the model, who bought these products once, a week ago."""
    row = {f"weights_{days}d": np.full(len(products), 0.5 ** (7 / days)) for days in (28, 56, 84, 120)}
    ones, week = np.ones(len(products), np.int64), np.full(len(products), 7)
    keys = {"customer_key": 5, "as_of": OPENING, "product_keys": np.array(products, np.int64)}
    return pd.DataFrame([{**keys, **row, "times": ones, "last_days": week, "first_days": week}])


@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_a_new_customer_gets_products_of_the_segment_of_their_first_basket(segment, model):
    first = 100 * (segment + 1)
    new = model.score(unknown_customer([first, first + 1, first + 2]), n=5, lists=("new",))
    assert [product_segment(product) for product in new.product_key if product != 1] == [segment] * (
        new.product_key != 1
    ).sum()


def test_a_customer_without_purchases_gets_the_bestsellers(model):
    recommended = model.score(unknown_customer([]), n=4, lists=("any", "again", "new"))
    assert recommended.list.unique().tolist() == ["any", "new"]
    assert set(recommended.source) == {"popular"}
    assert recommended.product_key.head(4).tolist() == model.population_average(4)[0].tolist()
    assert model.population_average(1)[0].item() == 1


def test_products_unknown_to_the_model_stay_in_the_again_list_and_do_no_harm(model):
    recommended = model.score(unknown_customer([777_777]), n=3)
    assert recommended[recommended.list == "again"].product_key.tolist() == [777_777]
    assert 777_777 not in set(recommended[recommended.list == "new"].product_key)


def test_products_can_be_excluded_for_all_or_one_customer_or_limited_to_an_allowed_set(model, current):
    assert not {1, 100} & set(model.score(current, exclude=[1, 100]).product_key)
    customer = current.customer_key.iloc[0]
    excluded_for_one = model.score(current, exclude={customer: {1, 100}})
    assert not {1, 100} & set(excluded_for_one[excluded_for_one.customer_key == customer].product_key)
    assert {1, 100} <= set(excluded_for_one.product_key)
    allowed = set(range(200, 212))
    assert set(model.score(current, only=allowed).product_key) == allowed
    assert model.score(current, only=()).empty


def test_a_customer_scored_alone_gets_the_same_lists_as_in_a_batch(model, current, recommended):
    for place in (0, 100, 239):
        alone = model.score(current.iloc[place : place + 1])
        batch = recommended[recommended.customer_key == current.customer_key.iloc[place]].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, batch, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def ranker_model(training_rows, model) -> Recommender:
    """The same shop, with both rankers whether or not they are better; its catalogue has each product's segment."""
    frame, label = training_rows
    product_keys = pd.Series(np.unique(np.concatenate([*frame.product_keys.dropna()])).astype(np.int64))
    catalogue = pd.DataFrame(
        {
            "product_key": product_keys,
            "category": (product_keys // 100).astype(str),
            "subcategory": product_keys.astype(str),
        }
    )
    context = Recommender.fit(*training_rows, products=catalogue.assign(department=None, brand=None)).product_context
    history = purchase_history.read(frame, ranking_features.history_columns((28, 56, 84, 120)))
    ranking_context, bought = context.ranking_context(history), purchase_history.read_label(label)
    entries = np.arange(len(history.rows))
    own_examples = candidate_ranking.RankingExamples(
        ranking_features.own_product_features(ranking_context, entries), bought.contains(history.rows, history.products)
    )
    candidates = discovery._candidates(ranking_context, 0.1, ranked_lists.ProductFilter(), 150)
    new_examples = candidate_ranking.RankingExamples(
        ranking_features.new_product_features(ranking_context, candidates),
        bought.contains(candidates.rows, candidates.products),
    )
    own_ranked = RepeatPurchases(
        model.repeat_purchases.baseline,
        candidate_ranking.fit([own_examples], seed=0, monotone_constraints=own_examples.features.monotone_constraints),
        {},
    )
    new_ranked = replace(model.discovery, method=discovery.RANKER, ranker=candidate_ranking.fit([new_examples], seed=0))
    assert own_ranked.ranker is not None
    assert new_ranked.ranker is not None
    return Recommender(context, own_ranked, new_ranked)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_rankers_give_a_customer_the_same_lists_in_any_batch(batch_size, ranker_model, current):
    batches = [ranker_model.score(current.iloc[place : place + batch_size]) for place in range(0, 84, batch_size)]
    together = ranker_model.score(current.head(84))
    pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), together, rtol=0, atol=2e-6)


def test_rankers_are_saved_and_loaded(ranker_model, current, tmp_path: Path):
    ranker_model.save(tmp_path)
    pd.testing.assert_frame_equal(Recommender.load(tmp_path).score(current), ranker_model.score(current))


def test_a_model_of_another_format_is_refused_with_what_to_do(model, tmp_path: Path, monkeypatch):
    model.save(tmp_path)
    monkeypatch.setattr(recommender_model, "FORMAT_VERSION", recommender_model.FORMAT_VERSION + 1)
    with pytest.raises(base.MissingFeatures, match="regulars run"):
        Recommender.load(tmp_path)


def test_a_list_that_is_long_enough_holds_every_product(model, current):
    everything = model.score(current, n=10_000, lists=("any",))
    assert (everything.groupby("customer_key").size() == SEGMENTS * EACH + 1).all()
    assert model.score(current, n=0).empty
    assert model.score(current.iloc[:0]).empty


def test_training_again_gives_the_same_lists(training_rows, current, recommended):
    pd.testing.assert_frame_equal(Recommender.fit(*training_rows).score(current), recommended)


def test_a_saved_model_gives_the_same_lists_and_holds_no_customer_key(model, current, recommended, tmp_path: Path):
    model.save(tmp_path)
    pd.testing.assert_frame_equal(Recommender.load(tmp_path).score(current), recommended)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        for name in arrays.files:
            assert not np.isin(current.customer_key, arrays[name]).any(), name
            assert len(arrays[name]) != CUSTOMERS, name


def test_with_one_complete_window_rankers_cannot_be_evaluated_so_decayed_frequency_serves(sales, current):
    frame = pd.concat([purchase_histories(sales, cutoff) for cutoff in CUTOFFS[-2:]], ignore_index=True)
    model = Recommender.fit(frame, window_purchases(sales, CUTOFFS[-2]) + [None] * CUSTOMERS)
    assert model.settings["again_by"] == "decayed frequency"
    assert len(model.score(current)) > 0


def test_too_few_buyers_in_the_complete_window_are_refused(training_rows, sales):
    frame, label = training_rows
    with pytest.raises(base.InsufficientData, match="fewer than 50 customers"):
        Recommender.fit(frame, [None] * len(frame))
    few = frame.groupby("as_of").head(20)
    with pytest.raises(base.InsufficientData):
        Recommender.fit(few, [label[place] for place in few.index])


def test_an_audience_is_far_better_than_chance_and_its_probabilities_are_calibrated(sales, model, current):
    """Who will buy any product of one segment: the likeliest tenth of the customers against all of them."""
    audience_products = list(range(100, 100 + EACH))
    bought = np.array(
        [bool(np.isin(products, audience_products).any()) for products in window_purchases(sales, CUTOFFS[-1])]
    )
    probabilities = model.purchase_probabilities(current, audience_products)
    best = np.argsort(-probabilities, kind="stable")[: CUSTOMERS // 10]
    assert bought[best].mean() > 2 * bought.mean()
    assert probabilities.mean() == pytest.approx(bought.mean(), abs=0.1)
    assert (probabilities <= 1).all()


def test_a_product_that_is_new_to_a_customer_is_no_likelier_than_for_customers_in_general(model, current):
    bestseller = model.population_average(1)
    probabilities = model.purchase_probabilities(current, bestseller[0])
    is_new = np.array([bestseller[0][0] not in products for products in current.product_keys])
    assert (probabilities[is_new] <= bestseller[1][0] + 1e-9).all()
