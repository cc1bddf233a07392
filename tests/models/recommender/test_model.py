"""A shop with four kinds of customers, each kind with its own dozen products: what is right is known."""

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

KINDS, EACH, CUSTOMERS = 4, 12, 240
WINDOW = 28
OPENING = pd.Timestamp("2017-01-01", tz="UTC")
MOMENTS = [112, 140, 168, 196]
FIRST_KEY = 9_000_000_000


def kind_of(product_key: int) -> int:
    """Products 100-111 are the first kind's, 200-211 the second's, and so on; 1 is bread, for everybody."""
    return product_key // 100 - 1


@pytest.fixture(scope="module")
def sales() -> pd.DataFrame:
    """Each customer has five favourites of their kind, and tries another now and then."""
    rng = np.random.default_rng(7)
    rows = []
    for customer in range(CUSTOMERS):
        own = 100 * (customer % KINDS + 1) + rng.permutation(EACH)
        chances = np.append([0.8, 0.6, 0.45, 0.3, 0.2], np.full(EACH - 5, 0.02))
        for day in np.flatnonzero(rng.random(MOMENTS[-1] + WINDOW) < 1 / 7):
            rows += [(customer, int(product), int(day)) for product in own[rng.random(EACH) < chances]]
            rows += [(customer, 1, int(day))] if rng.random() < 0.3 else []
    return pd.DataFrame(rows, columns=["customer", "product", "day"])


def shelf(sales: pd.DataFrame, moment: int) -> pd.DataFrame:
    """The shelf of every customer as of a day."""
    before = sales[sales.day < moment].assign(age=lambda rows: moment - rows.day)
    for half_life in (28, 56, 84, 120):
        before[f"weights_{half_life}d"] = 0.5 ** (before.age / half_life)
    bought = before.groupby(["customer", "product"]).agg(
        times=("age", "size"),
        last_days=("age", "min"),
        first_days=("age", "max"),
        **{f"weights_{days}d": (f"weights_{days}d", "sum") for days in (28, 56, 84, 120)},
    )
    lists = bought.reset_index("product").groupby("customer").agg(list)
    lists = lists.reindex(range(CUSTOMERS)).rename(columns={"product": "product_keys"})
    keys = {"customer_key": FIRST_KEY + lists.index, "as_of": OPENING + pd.Timedelta(days=moment)}
    return lists.assign(**keys).reset_index(drop=True)


def window(sales: pd.DataFrame, moment: int) -> list[np.ndarray]:
    after = sales[(sales.day >= moment) & (sales.day < moment + WINDOW)]
    bought = after.groupby("customer")["product"].unique()
    return [np.asarray(bought.get(customer, []), np.int64) for customer in range(CUSTOMERS)]


@pytest.fixture(scope="module")
def past(sales) -> tuple[pd.DataFrame, list]:
    """Four moments; what happened after the last one is not known yet."""
    frame = pd.concat([shelf(sales, moment) for moment in MOMENTS], ignore_index=True)
    return frame, [row for moment in MOMENTS[:-1] for row in window(sales, moment)] + [None] * CUSTOMERS


@pytest.fixture(scope="module")
def now(sales) -> pd.DataFrame:
    return shelf(sales, MOMENTS[-1])


@pytest.fixture(scope="module")
def model(past) -> Recommender:
    return Recommender.fit(*past)


@pytest.fixture(scope="module")
def answer(model, now) -> pd.DataFrame:
    return model.score(now)


def test_new_products_are_of_the_customers_own_kind_as_long_as_there_are_some(answer, now):
    own_bought = [sum(product != 1 for product in products) for products in now.product_keys]
    left = EACH - pd.Series(own_bought, index=now.customer_key)
    new = answer[(answer.list == "new") & (answer.product_key != 1)]
    first = new[new["rank"] <= new.customer_key.map(left).clip(upper=3)]
    assert len(first) > CUSTOMERS
    assert (first.product_key.map(kind_of) == (first.customer_key - FIRST_KEY) % KINDS).all()


def test_new_products_were_never_bought_and_again_products_were(answer, now):
    bought = {
        (key, product) for key, products in zip(now.customer_key, now.product_keys, strict=True) for product in products
    }
    pairs = list(zip(answer.customer_key, answer.product_key, strict=True))
    held = pd.Series([pair in bought for pair in pairs])
    assert not held[answer.list == "new"].any()
    assert held[answer.list == "again"].all()
    assert (held == (answer.source == "again"))[answer.list == "any"].all()


def test_lists_hold_each_product_once_with_ranks_from_one_and_falling_scores(answer):
    assert not answer.duplicated(["customer_key", "list", "product_key"]).any()
    groups = answer.groupby(["customer_key", "list"])
    assert (answer["rank"] == groups.cumcount() + 1).all()
    assert groups.score.apply(lambda scores: scores.is_monotonic_decreasing).all()
    assert answer.score.between(0, 1).all()


def test_one_list_of_both_is_not_worse_than_decayed_frequency(answer, past, now, sales):
    plain = DecayedFrequency.fit(*past).score(now, lists=("any",))
    truth = purchase_history.read_label(window(sales, MOMENTS[-1]))
    assert ndcg(answer[answer.list == "any"], truth) >= ndcg(plain, truth)


def ndcg(answer: pd.DataFrame, truth: purchase_history.WindowPurchases) -> float:
    rows = (answer.customer_key - FIRST_KEY).to_numpy()
    picks = ranked_lists.RankedProducts(
        rows,
        answer.product_key.to_numpy(),
        answer.score.to_numpy(),
        np.zeros(len(rows), np.int8),
        answer["rank"].to_numpy() - 1,
    )
    return ranked_lists.ndcg(picks, truth)


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_a_score_is_how_often_it_came_true_in_the_window_that_followed(name, answer, sales):
    truth = purchase_history.read_label(window(sales, MOMENTS[-1]))
    top = answer[(answer.list == name) & (answer["rank"] <= 5)]
    came = truth.contains((top.customer_key - FIRST_KEY).to_numpy(), top.product_key.to_numpy())
    assert top.score.mean() == pytest.approx(came.mean(), abs=0.06)


def test_folding_a_customer_in_gives_what_the_factorisation_gave_them(now):
    learned = matrix_factorisation.factorise(now, seed=0, window_days=WINDOW, factors=12, iterations=30, threads=1)
    stock = purchase_history.read(now, ["weights_120d"])
    known = AlternatingLeastSquares(
        factors=12, regularization=learned.regularisation, iterations=30, num_threads=1, random_state=0
    )
    places, sold = arrays.find_positions(learned.products, stock.products)
    shape = (len(stock), len(learned.products))
    bought = csr_matrix((stock.weights(120)[sold].astype(np.float32), (stock.rows[sold], places[sold])), shape=shape)
    known.fit(bought, show_progress=False)
    folded = learned.fold_in(stock)
    np.testing.assert_allclose(folded, known.recalculate_user(np.arange(len(stock)), bought), atol=1e-4)
    likes, liked = (side @ learned.factors.T for side in (folded, known.user_factors))
    assert np.corrcoef(likes.ravel(), liked.ravel())[0, 1] > 0.999


def stranger(products: list[int]) -> pd.DataFrame:
    """Somebody the model has never met, who bought these products once, a week ago."""
    row = {f"weights_{days}d": np.full(len(products), 0.5 ** (7 / days)) for days in (28, 56, 84, 120)}
    ones, week = np.ones(len(products), np.int64), np.full(len(products), 7)
    keys = {"customer_key": 5, "as_of": OPENING, "product_keys": np.array(products, np.int64)}
    return pd.DataFrame([{**keys, **row, "times": ones, "last_days": week, "first_days": week}])


@pytest.mark.parametrize("kind", range(KINDS))
def test_a_new_customer_gets_products_of_the_kind_of_their_first_basket(kind, model):
    first = 100 * (kind + 1)
    new = model.score(stranger([first, first + 1, first + 2]), n=5, lists=("new",))
    assert [kind_of(product) for product in new.product_key if product != 1] == [kind] * (new.product_key != 1).sum()


def test_somebody_who_bought_nothing_gets_what_sells(model):
    answer = model.score(stranger([]), n=4, lists=("any", "again", "new"))
    assert answer.list.unique().tolist() == ["any", "new"]
    assert set(answer.source) == {"popular"}
    assert answer.product_key.head(4).tolist() == model.population_average(4)[0].tolist()
    assert model.population_average(1)[0].item() == 1


def test_products_unknown_to_the_model_are_kept_on_the_shelf_and_do_no_harm(model):
    answer = model.score(stranger([777_777]), n=3)
    assert answer[answer.list == "again"].product_key.tolist() == [777_777]
    assert 777_777 not in set(answer[answer.list == "new"].product_key)


def test_products_can_be_left_out_for_all_or_for_one_and_a_request_can_name_what_it_allows(model, now):
    assert not {1, 100} & set(model.score(now, exclude=[1, 100]).product_key)
    somebody = now.customer_key.iloc[0]
    own = model.score(now, exclude={somebody: {1, 100}})
    assert not {1, 100} & set(own[own.customer_key == somebody].product_key)
    assert {1, 100} <= set(own.product_key)
    allowed = set(range(200, 212))
    assert set(model.score(now, only=allowed).product_key) == allowed
    assert model.score(now, only=()).empty


def test_a_customer_alone_gets_the_same_answer_as_among_all(model, now, answer):
    for place in (0, 100, 239):
        alone = model.score(now.iloc[place : place + 1])
        among = answer[answer.customer_key == now.customer_key.iloc[place]].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, among, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def grown(past, model) -> Recommender:
    """The same shop, ranked by trees whether they won or not; its catalogue knows each product's kind."""
    frame, label = past
    sold = pd.Series(np.unique(np.concatenate([*frame.product_keys.dropna()])).astype(np.int64))
    kinds = pd.DataFrame({"product_key": sold, "category": (sold // 100).astype(str), "subcategory": sold.astype(str)})
    known = Recommender.fit(*past, products=kinds.assign(department=None, brand=None)).product_context
    stock = purchase_history.read(frame, ranking_features.history_columns((28, 56, 84, 120)))
    scene, bought = known.ranking_context(stock), purchase_history.read_label(label)
    entries = np.arange(len(stock.rows))
    own = candidate_ranking.RankingExamples(
        ranking_features.own_product_features(scene, entries), bought.contains(stock.rows, stock.products)
    )
    found = discovery._candidates(scene, 0.1, ranked_lists.ProductFilter(), 150)
    fresh = candidate_ranking.RankingExamples(
        ranking_features.new_product_features(scene, found), bought.contains(found.rows, found.products)
    )
    mine = RepeatPurchases(
        model.repeat_purchases.baseline,
        candidate_ranking.fit([own], seed=0, monotone_constraints=own.features.monotone_constraints),
        {},
    )
    theirs = replace(model.discovery, method=discovery.RANKER, ranker=candidate_ranking.fit([fresh], seed=0))
    assert mine.ranker is not None
    assert theirs.ranker is not None
    return Recommender(known, mine, theirs)


@pytest.mark.parametrize("company", [1, 2, 7])
def test_trees_too_give_a_customer_the_same_answer_in_any_company(company, grown, now):
    few = [grown.score(now.iloc[place : place + company]) for place in range(0, 84, company)]
    among = grown.score(now.head(84))
    pd.testing.assert_frame_equal(pd.concat(few, ignore_index=True), among, rtol=0, atol=2e-6)


def test_trees_are_saved_and_loaded(grown, now, tmp_path: Path):
    grown.save(tmp_path)
    pd.testing.assert_frame_equal(Recommender.load(tmp_path).score(now), grown.score(now))


def test_a_model_of_another_shape_is_refused_with_what_to_do(model, tmp_path: Path, monkeypatch):
    model.save(tmp_path)
    monkeypatch.setattr(recommender_model, "FORMAT_VERSION", recommender_model.FORMAT_VERSION + 1)
    with pytest.raises(base.MissingFeatures, match="regulars run"):
        Recommender.load(tmp_path)


def test_everything_the_shop_sells_is_in_a_list_that_is_long_enough(model, now):
    everything = model.score(now, n=10_000, lists=("any",))
    assert (everything.groupby("customer_key").size() == KINDS * EACH + 1).all()
    assert model.score(now, n=0).empty
    assert model.score(now.iloc[:0]).empty


def test_training_again_gives_the_same_answer(past, now, answer):
    pd.testing.assert_frame_equal(Recommender.fit(*past).score(now), answer)


def test_what_is_saved_and_loaded_gives_the_same_answer_and_names_no_customer(model, now, answer, tmp_path: Path):
    model.save(tmp_path)
    pd.testing.assert_frame_equal(Recommender.load(tmp_path).score(now), answer)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        for name in arrays.files:
            assert not np.isin(now.customer_key, arrays[name]).any(), name
            assert len(arrays[name]) != CUSTOMERS, name


def test_with_one_known_window_there_is_no_judging_trees_so_decayed_frequency_serves(sales, now):
    frame = pd.concat([shelf(sales, moment) for moment in MOMENTS[-2:]], ignore_index=True)
    model = Recommender.fit(frame, window(sales, MOMENTS[-2]) + [None] * CUSTOMERS)
    assert model.settings["again_by"] == "decayed frequency"
    assert len(model.score(now)) > 0


def test_too_few_buyers_in_the_known_window_are_too_little(past, sales):
    frame, label = past
    with pytest.raises(base.InsufficientData, match="fewer than 50 customers"):
        Recommender.fit(frame, [None] * len(frame))
    few = frame.groupby("as_of").head(20)
    with pytest.raises(base.InsufficientData):
        Recommender.fit(few, [label[place] for place in few.index])


def test_an_audience_is_far_better_than_chance_and_its_chances_come_true(sales, model, now):
    """Who will buy any product of one kind: the tenth of the customers who are likeliest to, against everybody."""
    mine = list(range(100, 100 + EACH))
    bought = np.array([bool(np.isin(products, mine).any()) for products in window(sales, MOMENTS[-1])])
    chances = model.purchase_probabilities(now, mine)
    best = np.argsort(-chances, kind="stable")[: CUSTOMERS // 10]
    assert bought[best].mean() > 2 * bought.mean()
    assert chances.mean() == pytest.approx(bought.mean(), abs=0.1)
    assert (chances <= 1).all()


def test_a_product_that_is_new_to_a_customer_is_no_likelier_than_for_customers_in_general(model, now):
    best_seller = model.population_average(1)
    chances = model.purchase_probabilities(now, best_seller[0])
    strangers = np.array([best_seller[0][0] not in products for products in now.product_keys])
    assert (chances[strangers] <= best_seller[1][0] + 1e-9).all()
