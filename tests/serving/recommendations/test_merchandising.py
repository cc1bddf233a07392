"""The shop's rules: what may be listed for whom, what comes first, and a word where too little is left."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from customers.catalogue.product_attributes import RepurchaseDelays
from serving.recommendations import ranked_lists

#: The small shop's p00 to p39, every fourth of them bread, milk, fruit or paper.
PRODUCTS = [f"p{number:02d}" for number in range(40)]
KINDS = ("bread", "milk", "fruit", "paper")
SOLD_OUT = {"p01", "p02", "p30"}
#: Bought once and never again; and not before forty days are over.
NEVER, AFTER = {"p04", "p17"}, {"p09", "p22", "p31"}
AFTER_DAYS = 40
SEASON, ORGANIC = {"p08", "p19", "p27"}, {"p12", "p33"}
FOOD = set(PRODUCTS[:20])
EVERYBODY = [f"c{number:03d}" for number in range(150)]


def kind(product: str) -> str:
    return KINDS[int(product[1:]) % 4]


def margin(product: str) -> float | None:
    """Of the food: what costs 9 or 4 of 10; of the rest no cost is known."""
    return None if product not in FOOD else (10 - 9) / 10 if int(product[1:]) % 2 else (10 - 4) / 10


def _catalogue() -> pd.DataFrame:
    rows = [
        {
            "product_id": product,
            "department": "Food" if product in FOOD else "Home",
            "price": 10,
            "cost": {0.1: 9, 0.6: 4, None: None}[margin(product)],
            "stock": 0 if product in SOLD_OUT else None,
            "repurchase": "never" if product in NEVER else f"after_days:{AFTER_DAYS}" if product in AFTER else "",
            "labels": ";".join(name for name, mine in (("Season", SEASON), ("organic", ORGANIC)) if product in mine),
        }
        for product in PRODUCTS
    ]
    # A product that nobody has ever bought, and that the model has never heard of.
    return pd.DataFrame([*rows, {"product_id": "novelty", "labels": "launch", "department": "Food"}])


def restock(shop: Any, folder: Path) -> None:
    from customers.loading import load as loading_load

    path = folder / "catalogue.csv"
    _catalogue().to_csv(path, index=False)
    assert loading_load.load_files(shop, "products", [path]).rejected == 0


@pytest.fixture(scope="module")
def ruled(trained_home: Path, api_for: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A api of the small shop with what it says of its products; the shop itself wishes nothing."""
    home = tmp_path_factory.mktemp("ruled") / "home"
    shutil.copytree(trained_home, home)
    for api in api_for(home):
        restock(api.shop, home)
        yield api


@pytest.fixture
def shut(trained_home: Path, api_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A api of a shop whose settings leave nothing that may be listed."""
    shutil.copytree(trained_home, tmp_path / "home")
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", '{ exclude_departments = ["food", "home"] }')
    for api in api_for(tmp_path / "home"):
        restock(api.shop, tmp_path)
        yield api


@pytest.fixture
def settled(trained_home: Path, api_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A api of a shop that wishes something itself."""
    shutil.copytree(trained_home, tmp_path / "home")
    wishes = '{ exclude_categories = ["Milk"], in_stock_only = true, max_per_category = 4, explore = 0.1 }'
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", wishes)
    for api in api_for(tmp_path / "home"):
        restock(api.shop, tmp_path)
        yield api


def ask(api: Any, names: list[str] = EVERYBODY, **wishes: Any) -> list[dict[str, Any]]:
    response = api.post("/v1/recommendations", {"customer_ids": names, **wishes})
    assert response.status_code == 200, response.text
    return response.json()["results"]


def products(result: dict[str, Any]) -> list[str]:
    return [item["product_id"] for item in result["items"]]


def shelves(api: Any, names: list[str] = EVERYBODY) -> dict[str, dict[str, int]]:
    """How many days ago each customer last bought each of their products."""
    from customers.catalogue import products as catalogue_products
    from customers.people import lookup
    from serving import runtime

    here = runtime.open_runtime(api.shop)
    keys = lookup.find_keys(api.shop, names)
    frame = here.load_features(here.champion("recommender"), [keys[name] for name in names])
    ids = catalogue_products.find_ids(api.shop, {int(key) for row in frame["product_keys"][:-1] for key in row})
    return {
        name: {ids[int(key)]: int(days) for key, days in zip(row["product_keys"], row["last_days"], strict=True)}
        for name, (_, row) in zip(names, frame.iloc[:-1].iterrows(), strict=True)
    }


# What may not be listed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        ({"exclude_product_ids": ["p00", "p03"]}, lambda product: product not in ("p00", "p03")),
        ({"categories": ["Milk", "BREAD"]}, lambda product: kind(product) in ("milk", "bread")),
        ({"exclude_categories": ["Milk", "BREAD"]}, lambda product: kind(product) not in ("milk", "bread")),
        ({"exclude_departments": ["food"]}, lambda product: product not in FOOD),
        ({"in_stock_only": True}, lambda product: product not in SOLD_OUT),
        ({"min_margin": 0.3}, lambda product: margin(product) in (None, 0.6)),
        ({"min_margin": 0.3, "exclude_departments": ["HOME"], "in_stock_only": True},
         lambda product: margin(product) == 0.6 and product not in SOLD_OUT),
    ],
    ids=lambda wish: "+".join(wish) if isinstance(wish, dict) else "",
)  # fmt: skip
@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_what_is_left_out_makes_room_for_the_next(ruled: Any, name: str, wish: dict[str, Any], kept: Any) -> None:
    """The list under a rule is the whole list without what the rule takes out."""
    whole, under = ask(ruled, list=name, n=50), ask(ruled, list=name, n=10, **wish)
    for before, after in zip(whole, under, strict=True):
        assert products(after) == [product for product in products(before) if kept(product)][:10]
        assert (after["short"] is None) == (len(after["items"]) == 10)


def test_a_margin_that_is_not_known_may_stay_and_the_answer_says_so(ruled: Any) -> None:
    (result,) = ask(ruled, ["c000"], min_margin=0.3)
    assert result["notes"] == ["min_margin: 21 products without a price or a cost may stay"]  # 20, and the novelty


# What is not bought again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_what_is_bought_once_in_a_lifetime_is_never_listed_again(ruled: Any, name: str) -> None:
    own = shelves(ruled)
    assert any(NEVER & set(mine) for mine in own.values())
    for who, result in zip(EVERYBODY, ask(ruled, list=name, n=50), strict=True):
        assert not NEVER & set(own[who]) & set(products(result))
    if name != "again":
        listed = {product for result in ask(ruled, list=name, n=50) for product in products(result)}
        assert listed >= NEVER  # whoever has not bought it may


@pytest.mark.parametrize("name", ["any", "again"])
def test_what_lasts_for_forty_days_is_listed_again_after_forty(ruled: Any, name: str) -> None:
    own = shelves(ruled)
    for who, result in zip(EVERYBODY, ask(ruled, list=name, n=50), strict=True):
        lasts = {product for product, days in own[who].items() if product in AFTER and days < AFTER_DAYS}
        over = {product for product, days in own[who].items() if product in AFTER and days >= AFTER_DAYS}
        assert not lasts & set(products(result))
        assert over <= set(products(result))


def test_the_days_go_on_while_the_figures_stand_still(ruled: Any) -> None:
    from customers import clock
    from customers.people import lookup
    from serving import runtime
    from serving.recommendations import merchandising

    here = runtime.open_runtime(ruled.shop)
    keys = lookup.find_keys(ruled.shop, EVERYBODY)
    shelf = here.load_features(here.champion("recommender"), [keys[name] for name in EVERYBODY])
    today, later = (
        merchandising.excluded_products(
            shelf, merchandising.load_active_rules(ruled.shop, clock.now(ruled.shop) + timedelta(days=days))
        )
        for days in (0, 40)
    )
    never = {key for key, mine in today.items() if key in later}
    assert 0 < sum(map(len, later.values())) < sum(map(len, today.values()))
    assert never == set(later)


def test_what_was_bought_before_a_full_shelf_is_not_forgotten(ruled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of who has bought more products than a shelf holds the oldest are not on it; the sales still tell of them."""
    from customers import clock
    from customers.catalogue import products as catalogue_products
    from customers.people import lookup
    from serving import runtime
    from serving.recommendations import merchandising

    here, who = runtime.open_runtime(ruled.shop), EVERYBODY[:20]
    keys = lookup.find_keys(ruled.shop, who)
    shelf = here.load_features(here.champion("recommender"), [keys[name] for name in who])
    never = set(catalogue_products.find_keys(ruled.shop, sorted(NEVER)).values())
    order = merchandising.load_active_rules(ruled.shop, clock.now(ruled.shop))
    whole = {key: set(mine.tolist()) & never for key, mine in merchandising.excluded_products(shelf, order).items()}
    assert any(whole.values())
    for name in ("product_keys", "last_days"):
        kept = [[not never & {key} for key in keys] for keys in shelf["product_keys"][:-1]]
        shelf[f"short_{name}"] = [
            *(np.array(all_)[keep] for all_, keep in zip(shelf[name][:-1], kept, strict=True)),
            None,
        ]
    short = shelf.assign(product_keys=shelf["short_product_keys"], last_days=shelf["short_last_days"])
    assert not any(set(mine.tolist()) & never for mine in merchandising.excluded_products(short, order).values())
    monkeypatch.setattr(merchandising, "MAX_PRODUCTS", 1)
    assert {
        key: set(mine.tolist()) & never for key, mine in merchandising.excluded_products(short, order).items()
    } == whole


def test_a_product_once_bought_leaves_every_list_with_the_sale(ruled: Any) -> None:
    """Somebody buys what is bought but once: the next answer knows, and so does their file."""
    who = next(name for name, mine in shelves(ruled).items() if not NEVER & set(mine))
    (before,) = ask(ruled, [who], list="new", n=50)
    assert set(products(before)) >= NEVER
    sold = {"order_id": str(uuid4()), "line_id": "1", "customer_id": who, "product_id": "p04", "quantity": 1,
            "sold_at": "2025-07-24T12:00:00-04:00", "amount": "5.00"}  # fmt: skip
    assert ruled.post("/v1/transactions", sold, "till").json()["refreshed"]
    for name in ("any", "again", "new"):
        assert "p04" not in products(ask(ruled, [who], list=name, n=50)[0])


# What comes first -----------------------------------------------------------------------------------------


def test_a_boost_moves_what_carries_the_label_by_its_score(ruled: Any) -> None:
    whole, under = ask(ruled, list="again", n=50), ask(ruled, list="again", n=50, boost={"ORGANIC": 3})
    for before, after in zip(whole, under, strict=True):
        score = {item["product_id"]: item["score"] * (3 if item["product_id"] in ORGANIC else 1)
                 for item in before["items"]}  # fmt: skip
        assert {item["product_id"]: item["score"] for item in after["items"]} == pytest.approx(
            {product: min(1.0, worth) for product, worth in score.items()}
        )
        assert [score[product] for product in products(after)] == sorted(score.values(), reverse=True)


def test_a_boost_of_nothing_puts_what_carries_the_label_last(ruled: Any) -> None:
    for result in ask(ruled, n=50, boost={"organic": 0, "season": 1}):
        organic = [product in ORGANIC for product in products(result)]
        assert organic == sorted(organic)


def test_what_is_pinned_comes_first_where_the_customer_may_have_it(ruled: Any) -> None:
    for name in ("any", "new", "again"):
        for before, after in zip(ask(ruled, list=name, n=50), ask(ruled, list=name, pin=["season"]), strict=True):
            first = SEASON & set(products(before))
            rest = [product for product in products(before) if product not in SEASON]
            assert set(products(after)[: len(first)]) == first
            assert products(after)[len(first) :] == rest[: 10 - len(first)]


def test_a_pin_does_not_open_what_another_rule_shuts(ruled: Any) -> None:
    for result in ask(ruled, pin=["season"], exclude_product_ids=["p08"], exclude_departments=["home"]):
        assert products(result)[0] == "p19"  # of the season, what is food and not left out
        assert not {"p08", "p27"} & set(products(result))


def test_a_novelty_that_nobody_has_bought_can_be_put_first(ruled: Any) -> None:
    for result in ask(ruled, [*EVERYBODY[:5], "stranger"], pin=["launch"]):
        first = result["items"][0]
        assert (first["product_id"], first["source"]) == ("novelty", "pinned")
        assert first["reason"] == "the shop puts it first"
        assert len(result["items"]) == 10
    for result in ask(ruled, EVERYBODY[:5], list="again", pin=["launch"]):
        assert "novelty" not in products(result)


def test_what_is_put_first_for_one_does_not_depend_on_who_is_asked_beside_them(ruled: Any) -> None:
    """Each alone gets what they get among all; the novelty for everybody, what is bought once for who has not."""
    wish = {"pin": ["launch", "season", "organic"], "list": "new", "n": 12}
    together = [products(result) for result in ask(ruled, EVERYBODY[:12], **wish)]
    assert together == [products(ask(ruled, [name], **wish)[0]) for name in EVERYBODY[:12]]
    assert all("novelty" in listed for listed in together)


def test_a_pin_of_which_the_model_speaks_to_others_alone_is_put_first_too() -> None:
    """The model speaks of 7 to Ann alone, and Cem has bought it: only Ben is given it without a score."""
    shelf = pd.DataFrame({"customer_key": [1, 2, 3], "product_keys": [np.array([5]), np.array([5]), np.array([7])]})
    first = pd.DataFrame({"customer_key": [1], "list": ["new"], "product_key": [7]})
    order = SimpleNamespace(
        pinned_keys=np.array([7]), excluded_keys=np.empty(0, np.int64), repurchase_delays=RepurchaseDelays(np.empty(0, np.int64), np.empty(0))
    )
    asking = ranked_lists._ListRequest(None, shelf, order, ("again", "new"), np.empty(0, np.int64), frozenset())  # type: ignore[arg-type]
    assert ranked_lists._unscored(asking, shelf, first)["customer_key"].tolist() == [2]


# How lists are mixed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 5])
def test_at_most_so_many_of_a_category_and_the_best_of_each(ruled: Any, most: int) -> None:
    for before, after in zip(ask(ruled, n=50), ask(ruled, max_per_category=most), strict=True):
        best = [product for kinds in KINDS for product in [p for p in products(before) if kind(p) == kinds][:most]]
        assert products(after) == [product for product in products(before) if product in best][:10]
        assert (after["short"] is None) == (4 * most >= 10)


def test_where_categories_are_few_the_answer_says_that_they_were_the_reason(ruled: Any) -> None:
    (result,) = ask(ruled, ["stranger"], max_per_category=2)
    assert len(result["items"]) == 4 * 2
    assert result["short"] == {"missing": 10 - 8, "rules": ["max_per_category"],
                               "reason": "8 of 10; left out: more than the most of one category"}  # fmt: skip


def test_a_tenth_of_the_places_is_explored_from_below_and_the_same_draw_comes_again(ruled: Any) -> None:
    wish = {"n": 10, "explore": 0.1, "seed": 3}
    whole, under = ask(ruled, n=50), ask(ruled, **wish)
    for before, after in zip(whole, under, strict=True):
        assert products(after)[:9] == products(before)[:9]
        assert after["items"][9]["source"] == "explore"
        assert after["items"][9]["reason"] == "something else, to learn what they like"
        assert products(after)[9] in products(before)[10:]
    assert ask(ruled, **wish) == under
    assert ask(ruled, ["c007"], **wish) == [under[7]]
    assert [products(result)[9] for result in ask(ruled, **wish | {"seed": 4})] != [products(r)[9] for r in under]


# Too little, or nothing -----------------------------------------------------------------------------------


def test_who_has_bought_no_more_is_told_so(ruled: Any) -> None:
    (result,) = ask(ruled, ["c000"], list="again", n=50)
    assert result["short"]["rules"] == [] or result["short"]["rules"] == ["repurchase"]
    assert result["short"]["missing"] == 50 - len(result["items"])


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_everything_left_out_leaves_nothing_and_a_reason(ruled: Any, name: str) -> None:
    wish = {"exclude_departments": ["food", "home"], "list": name}
    for result in ask(ruled, ["c000", "stranger", "quiet"], **wish):
        assert result["items"] == []
        assert result["short"]["missing"] == 10
        assert result["short"]["rules"][0] == "exclude_departments"
        assert result["short"]["reason"].startswith("0 of 10; left out: departments that are left out")


def test_the_first_rule_that_leaves_a_product_out_is_the_one_that_is_named(ruled: Any) -> None:
    wish = {"categories": ["milk"], "exclude_categories": ["bread"], "in_stock_only": True, "n": 50, "list": "new"}
    (result,) = ask(ruled, ["stranger"], **wish)
    assert result["short"]["rules"] == ["categories", "in_stock_only"]  # no bread is among the milk anyway


def test_words_that_mean_nothing_here_are_passed_over_and_counted(ruled: Any) -> None:
    wish = {
        "exclude_product_ids": ["p00", "nobody's", "none"], "exclude_categories": ["tea"], "pin": ["x"],
        "boost": {"y": 2, "organic": 1}, "exclude_departments": ["food", "z"],
    }  # fmt: skip
    plain, under = ask(ruled, ["c003"], exclude_departments=["food"]), ask(ruled, ["c003"], **wish)
    assert products(under[0]) == products(plain[0])
    assert under[0]["notes"] == [
        "exclude_product_ids: 2 of 3 are no products of this shop",
        "exclude_categories: 1 of 1 is not in the catalogue",
        "exclude_departments: 1 of 2 is not in the catalogue",
        "boost: 1 of 2 is carried by no product",
        "pin: 1 of 1 is carried by no product",
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"n": 0}, {"n": 10_000}, {"max_per_category": 0}, {"explore": 0.9}, {"explore": -1}, {"min_margin": 2},
     {"boost": {"organic": -1}}, {"boost": ["organic"]}, {"pin": "season"}, {"exclude_categories": "milk"},
     {"in_stock_only": "perhaps"}, {"seed": -1}, {"exclude_category": ["milk"]}],
    ids=str,
)  # fmt: skip
def test_a_wish_that_makes_no_sense_is_refused(ruled: Any, wrong: dict[str, Any]) -> None:
    assert ruled.post("/v1/recommendations", {"customer_ids": ["c000"], **wrong}).status_code == 422


def test_one_customer_may_be_asked_with_the_same_rules(ruled: Any) -> None:
    words = "exclude_categories=milk&pin=season&exclude_product_ids=p00&exclude_departments=home&categories=bread"
    query = f"{words}&categories=milk&max_per_category=3&in_stock_only=true&explore=0.2&seed=1&min_margin=0.3"
    (alone,) = ruled.read(f"/v1/customers/c005/recommendations?{query}").json()["results"]
    (among,) = ask(
        ruled, ["c005"], exclude_categories=["milk"], pin=["season"], exclude_product_ids=["p00"],
        exclude_departments=["home"], categories=["bread", "milk"], max_per_category=3, in_stock_only=True,
        explore=0.2, seed=1, min_margin=0.3,
    )  # fmt: skip
    assert alone == among
    assert products(alone)[0] == "p08"


# The shop's own settings ----------------------------------------------------------------------------------


def test_the_shops_own_rules_hold_at_the_door_by_night_and_in_exports(settled: Any, score_customers: Any) -> None:
    from customers.reports import exports

    score_customers(settled.shop)
    table = exports.build_table(settled.shop, "recommendations")
    assert not table["product_id"].isin(SOLD_OUT).any()
    assert set(table["product_id"].map(lambda product: "?" if product == "novelty" else kind(product))) == {
        "bread", "fruit", "paper",
    }  # fmt: skip
    sizes = table.assign(kind=table["product_id"].map(kind)).groupby(["customer_id", "list", "kind"]).size()
    assert sizes.max() == 4
    own = shelves(settled)
    for who, mine in table.groupby("customer_id"):
        assert not NEVER & set(own[who]) & set(mine["product_id"])
    kept = table[(table["list"] == "any") & (table["rank"] <= 10)].groupby("customer_id")["product_id"].agg(list)
    for who, result in zip(EVERYBODY, ask(settled, n=10), strict=True):
        assert products(result) == kept[who]


def test_a_question_adds_to_what_the_shop_leaves_out_and_may_lift_the_rest(settled: Any) -> None:
    for result in ask(settled, exclude_categories=["bread"], max_per_category=50, in_stock_only=False, explore=0):
        assert {kind(product) for product in products(result)} == {"fruit", "paper"}
        assert len(result["items"]) == 10
    listed = {product for result in ask(settled, in_stock_only=False, n=50) for product in products(result)}
    assert "p30" in listed  # sold out, and asked for all the same


def test_asking_with_rules_of_ones_own_leaves_what_is_kept_as_it_was(settled: Any) -> None:
    (before,) = ask(settled, ["c000"])
    ask(settled, ["c000"], exclude_categories=["bread"], pin=["season"])
    shown = settled.read("/v1/customers/c000/scores").json()["scores"]["recommender"]["items"]
    assert [item["product_id"] for item in shown] == products(before)[:10]


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_a_shop_that_leaves_out_all_it_sells_answers_with_the_reason(
    shut: Any, score_customers: Any, name: str
) -> None:
    score_customers(shut.shop)
    wish = {"explore": 0.5, "max_per_category": 1, "pin": ["season", "launch"], "boost": {"organic": 2}}
    for wishes in ({}, wish, {"exclude_categories": ["milk"]}):
        for result in ask(shut, ["c000", "stranger"], list=name, **wishes):
            assert result["items"] == []
            assert "exclude_departments" in result["short"]["rules"]
