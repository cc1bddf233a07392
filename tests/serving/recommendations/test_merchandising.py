"""Merchandising rules: excluded products, boosts and pins, and the reason when a list is shorter than requested."""

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
CATEGORIES = ("bread", "milk", "fruit", "paper")
SOLD_OUT = {"p01", "p02", "p30"}
#: Products bought only once, and products bought again only after AFTER_DAYS days.
NEVER, AFTER_DELAY = {"p04", "p17"}, {"p09", "p22", "p31"}
AFTER_DAYS = 40
SEASON, ORGANIC = {"p08", "p19", "p27"}, {"p12", "p33"}
FOOD = set(PRODUCTS[:20])
CUSTOMERS = [f"c{number:03d}" for number in range(150)]


def category(product: str) -> str:
    return CATEGORIES[int(product[1:]) % 4]


def margin(product: str) -> float | None:
    """The margin as a share of the price 10: food costs 9 or 4; the cost of other products is unknown."""
    return None if product not in FOOD else (10 - 9) / 10 if int(product[1:]) % 2 else (10 - 4) / 10


def _catalogue() -> pd.DataFrame:
    rows = [
        {
            "product_id": product,
            "department": "Food" if product in FOOD else "Home",
            "price": 10,
            "cost": {0.1: 9, 0.6: 4, None: None}[margin(product)],
            "stock": 0 if product in SOLD_OUT else None,
            "repurchase": "never" if product in NEVER else f"after_days:{AFTER_DAYS}" if product in AFTER_DELAY else "",
            "labels": ";".join(
                name for name, labelled in (("Season", SEASON), ("organic", ORGANIC)) if product in labelled
            ),
        }
        for product in PRODUCTS
    ]
    # A product without sales, which the model does not know.
    return pd.DataFrame([*rows, {"product_id": "novelty", "labels": "launch", "department": "Food"}])


def load_catalogue_file(shop: Any, folder: Path) -> None:
    from customers.loading.load import load_files

    path = folder / "catalogue.csv"
    _catalogue().to_csv(path, index=False)
    assert load_files(shop, "products", [path]).rejected == 0


@pytest.fixture(scope="module")
def api_with_catalogue(trained_home: Path, api_for: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The API of the small shop with a full catalogue and no merchandising rules in its settings."""
    home = tmp_path_factory.mktemp("ruled") / "home"
    shutil.copytree(trained_home, home)
    for api in api_for(home):
        load_catalogue_file(api.shop, home)
        yield api


@pytest.fixture
def api_excluding_all(
    trained_home: Path, api_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The API of a shop whose settings exclude every product."""
    shutil.copytree(trained_home, tmp_path / "home")
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", '{ exclude_departments = ["food", "home"] }')
    for api in api_for(tmp_path / "home"):
        load_catalogue_file(api.shop, tmp_path)
        yield api


@pytest.fixture
def api_with_rules(trained_home: Path, api_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The API of a shop that has merchandising rules in its settings."""
    shutil.copytree(trained_home, tmp_path / "home")
    rules = '{ exclude_categories = ["Milk"], in_stock_only = true, max_per_category = 4, explore = 0.1 }'
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", rules)
    for api in api_for(tmp_path / "home"):
        load_catalogue_file(api.shop, tmp_path)
        yield api


def recommend(api: Any, customer_ids: list[str] = CUSTOMERS, **rules: Any) -> list[dict[str, Any]]:
    response = api.post("/v1/recommendations", {"customer_ids": customer_ids, **rules})
    assert response.status_code == 200, response.text
    return response.json()["results"]


def products(result: dict[str, Any]) -> list[str]:
    return [item["product_id"] for item in result["items"]]


def load_days_since(api: Any, customer_ids: list[str] = CUSTOMERS) -> dict[str, dict[str, int]]:
    """Days since the last purchase, by customer id and product id."""
    from customers.catalogue import products as catalogue_products
    from customers.people import lookup
    from serving import runtime

    server_runtime = runtime.open_runtime(api.shop)
    keys = lookup.find_keys(api.shop, customer_ids)
    frame = server_runtime.load_features(
        server_runtime.champion("recommender"), [keys[customer_id] for customer_id in customer_ids]
    )
    ids = catalogue_products.find_ids(api.shop, {int(key) for row in frame["product_keys"][:-1] for key in row})
    return {
        customer_id: {ids[int(key)]: int(days) for key, days in zip(row["product_keys"], row["last_days"], strict=True)}
        for customer_id, (_, row) in zip(customer_ids, frame.iloc[:-1].iterrows(), strict=True)
    }


# Excluded products ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "is_allowed"),
    [
        ({"exclude_product_ids": ["p00", "p03"]}, lambda product: product not in ("p00", "p03")),
        ({"categories": ["Milk", "BREAD"]}, lambda product: category(product) in ("milk", "bread")),
        ({"exclude_categories": ["Milk", "BREAD"]}, lambda product: category(product) not in ("milk", "bread")),
        ({"exclude_departments": ["food"]}, lambda product: product not in FOOD),
        ({"in_stock_only": True}, lambda product: product not in SOLD_OUT),
        ({"min_margin": 0.3}, lambda product: margin(product) in (None, 0.6)),
        ({"min_margin": 0.3, "exclude_departments": ["HOME"], "in_stock_only": True},
         lambda product: margin(product) == 0.6 and product not in SOLD_OUT),
    ],
    ids=lambda rules: "+".join(rules) if isinstance(rules, dict) else "",
)  # fmt: skip
@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_excluded_products_are_replaced_by_the_next_ones(
    api_with_catalogue: Any, name: str, rules: dict[str, Any], is_allowed: Any
) -> None:
    """A list with rules is the whole list without the products that the rules exclude."""
    whole, restricted = (
        recommend(api_with_catalogue, list=name, n=50),
        recommend(api_with_catalogue, list=name, n=10, **rules),
    )
    for before, after in zip(whole, restricted, strict=True):
        assert products(after) == [product for product in products(before) if is_allowed(product)][:10]
        assert (after["short"] is None) == (len(after["items"]) == 10)


def test_a_product_with_unknown_margin_is_not_excluded_and_is_noted(api_with_catalogue: Any) -> None:
    (result,) = recommend(api_with_catalogue, ["c000"], min_margin=0.3)
    assert result["notes"] == ["min_margin: 21 products without a price or a cost may stay"]  # 20, and the novelty


# Repurchase delays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_a_product_never_bought_again_is_not_listed_for_its_buyers(api_with_catalogue: Any, name: str) -> None:
    days_since = load_days_since(api_with_catalogue)
    assert any(NEVER & set(bought) for bought in days_since.values())
    for customer, result in zip(CUSTOMERS, recommend(api_with_catalogue, list=name, n=50), strict=True):
        assert not NEVER & set(days_since[customer]) & set(products(result))
    if name != "again":
        listed = {product for result in recommend(api_with_catalogue, list=name, n=50) for product in products(result)}
        assert listed >= NEVER  # customers without the product may have it


@pytest.mark.parametrize("name", ["any", "again"])
def test_a_product_with_a_repurchase_delay_is_listed_again_after_the_delay(api_with_catalogue: Any, name: str) -> None:
    days_since = load_days_since(api_with_catalogue)
    for customer, result in zip(CUSTOMERS, recommend(api_with_catalogue, list=name, n=50), strict=True):
        delayed = {
            product for product, days in days_since[customer].items() if product in AFTER_DELAY and days < AFTER_DAYS
        }
        due = {
            product for product, days in days_since[customer].items() if product in AFTER_DELAY and days >= AFTER_DAYS
        }
        assert not delayed & set(products(result))
        assert due <= set(products(result))


def test_repurchase_delays_end_while_the_features_are_unchanged(api_with_catalogue: Any) -> None:
    from customers import clock
    from customers.people import lookup
    from serving import runtime
    from serving.recommendations import merchandising

    server_runtime = runtime.open_runtime(api_with_catalogue.shop)
    keys = lookup.find_keys(api_with_catalogue.shop, CUSTOMERS)
    history = server_runtime.load_features(server_runtime.champion("recommender"), [keys[name] for name in CUSTOMERS])
    today, later = (
        merchandising.excluded_products(
            history,
            merchandising.load_active_rules(
                api_with_catalogue.shop, clock.now(api_with_catalogue.shop) + timedelta(days=days)
            ),
        )
        for days in (0, 40)
    )
    excluded_later = {key for key, excluded in today.items() if key in later}
    assert 0 < sum(map(len, later.values())) < sum(map(len, today.values()))
    assert excluded_later == set(later)


def test_purchases_beyond_a_full_history_still_exclude_products(
    api_with_catalogue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history with MAX_PRODUCTS products lacks the oldest ones; these are read from the sales."""
    from customers import clock
    from customers.catalogue import products as catalogue_products
    from customers.people import lookup
    from serving import runtime
    from serving.recommendations import merchandising

    server_runtime, customer_ids = runtime.open_runtime(api_with_catalogue.shop), CUSTOMERS[:20]
    keys = lookup.find_keys(api_with_catalogue.shop, customer_ids)
    history = server_runtime.load_features(
        server_runtime.champion("recommender"), [keys[name] for name in customer_ids]
    )
    never = set(catalogue_products.find_keys(api_with_catalogue.shop, sorted(NEVER)).values())
    rules = merchandising.load_active_rules(api_with_catalogue.shop, clock.now(api_with_catalogue.shop))
    whole = {
        key: set(excluded.tolist()) & never for key, excluded in merchandising.excluded_products(history, rules).items()
    }
    assert any(whole.values())
    for name in ("product_keys", "last_days"):
        masks = [[not never & {key} for key in keys] for keys in history["product_keys"][:-1]]
        history[f"short_{name}"] = [
            *(np.array(values)[mask] for values, mask in zip(history[name][:-1], masks, strict=True)),
            None,
        ]
    short = history.assign(product_keys=history["short_product_keys"], last_days=history["short_last_days"])
    assert not any(
        set(excluded.tolist()) & never for excluded in merchandising.excluded_products(short, rules).values()
    )
    monkeypatch.setattr(merchandising, "MAX_PRODUCTS", 1)
    assert {
        key: set(excluded.tolist()) & never for key, excluded in merchandising.excluded_products(short, rules).items()
    } == whole


def test_a_product_bought_only_once_leaves_every_list_with_the_sale(api_with_catalogue: Any) -> None:
    """A product that is bought only once is on no list after its sale is recorded."""
    customer = next(name for name, bought in load_days_since(api_with_catalogue).items() if not NEVER & set(bought))
    (before,) = recommend(api_with_catalogue, [customer], list="new", n=50)
    assert set(products(before)) >= NEVER
    sale = {
        "order_id": str(uuid4()),
        "line_id": "1",
        "customer_id": customer,
        "product_id": "p04",
        "quantity": 1,
        "sold_at": "2025-07-24T12:00:00-04:00",
        "amount": "5.00",
    }
    assert api_with_catalogue.post("/v1/transactions", sale, "till").json()["refreshed"]
    for name in ("any", "again", "new"):
        assert "p04" not in products(recommend(api_with_catalogue, [customer], list=name, n=50)[0])


# Boosts and pins ------------------------------------------------------------------------------------------


def test_a_boost_multiplies_the_scores_of_labelled_products(api_with_catalogue: Any) -> None:
    whole, boosted = (
        recommend(api_with_catalogue, list="again", n=50),
        recommend(api_with_catalogue, list="again", n=50, boost={"ORGANIC": 3}),
    )
    for before, after in zip(whole, boosted, strict=True):
        scores = {item["product_id"]: item["score"] * (3 if item["product_id"] in ORGANIC else 1)
                 for item in before["items"]}  # fmt: skip
        assert {item["product_id"]: item["score"] for item in after["items"]} == pytest.approx(
            {product: min(1.0, value) for product, value in scores.items()}
        )
        assert [scores[product] for product in products(after)] == sorted(scores.values(), reverse=True)


def test_a_boost_of_zero_puts_labelled_products_last(api_with_catalogue: Any) -> None:
    for result in recommend(api_with_catalogue, n=50, boost={"organic": 0, "season": 1}):
        organic = [product in ORGANIC for product in products(result)]
        assert organic == sorted(organic)


def test_pinned_products_come_first_where_they_are_allowed(api_with_catalogue: Any) -> None:
    for name in ("any", "new", "again"):
        for before, after in zip(
            recommend(api_with_catalogue, list=name, n=50),
            recommend(api_with_catalogue, list=name, pin=["season"]),
            strict=True,
        ):
            first = SEASON & set(products(before))
            rest = [product for product in products(before) if product not in SEASON]
            assert set(products(after)[: len(first)]) == first
            assert products(after)[len(first) :] == rest[: 10 - len(first)]


def test_a_pin_does_not_override_an_exclusion(api_with_catalogue: Any) -> None:
    for result in recommend(
        api_with_catalogue, pin=["season"], exclude_product_ids=["p08"], exclude_departments=["home"]
    ):
        assert products(result)[0] == "p19"  # the only seasonal product that is food and not excluded
        assert not {"p08", "p27"} & set(products(result))


def test_a_product_without_sales_can_be_pinned(api_with_catalogue: Any) -> None:
    for result in recommend(api_with_catalogue, [*CUSTOMERS[:5], "stranger"], pin=["launch"]):
        first = result["items"][0]
        assert (first["product_id"], first["source"]) == ("novelty", "pinned")
        assert first["reason"] == "the shop puts it first"
        assert len(result["items"]) == 10
    for result in recommend(api_with_catalogue, CUSTOMERS[:5], list="again", pin=["launch"]):
        assert "novelty" not in products(result)


def test_the_pins_of_a_customer_do_not_depend_on_the_other_requested_customers(api_with_catalogue: Any) -> None:
    """A request for one customer gives the same list as a request for twelve; all of them get the novelty."""
    rules = {"pin": ["launch", "season", "organic"], "list": "new", "n": 12}
    together = [products(result) for result in recommend(api_with_catalogue, CUSTOMERS[:12], **rules)]
    assert together == [products(recommend(api_with_catalogue, [name], **rules)[0]) for name in CUSTOMERS[:12]]
    assert all("novelty" in listed for listed in together)


def test_a_pin_scored_only_for_other_customers_is_added_without_a_score() -> None:
    """Product 7 has a score for customer 1 only and customer 3 has bought it: customer 2 alone gets it without one."""
    history = pd.DataFrame({"customer_key": [1, 2, 3], "product_keys": [np.array([5]), np.array([5]), np.array([7])]})
    scored = pd.DataFrame({"customer_key": [1], "list": ["new"], "product_key": [7]})
    no_keys = np.empty(0, np.int64)
    rules = SimpleNamespace(
        pinned_keys=np.array([7]), excluded_keys=no_keys, repurchase_delays=RepurchaseDelays(no_keys, np.empty(0))
    )
    request = ranked_lists._ListRequest(None, history, rules, ("again", "new"), no_keys, frozenset())  # type: ignore[arg-type]
    assert ranked_lists._unscored(request, history, scored)["customer_key"].tolist() == [2]


# Diversity and exploration --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_category_limit_leaves_the_best_products_of_each_category(api_with_catalogue: Any, limit: int) -> None:
    for before, after in zip(
        recommend(api_with_catalogue, n=50), recommend(api_with_catalogue, max_per_category=limit), strict=True
    ):
        best = [
            product for name in CATEGORIES for product in [p for p in products(before) if category(p) == name][:limit]
        ]
        assert products(after) == [product for product in products(before) if product in best][:10]
        assert (after["short"] is None) == (4 * limit >= 10)


def test_a_list_shortened_by_the_category_limit_names_that_rule(api_with_catalogue: Any) -> None:
    (result,) = recommend(api_with_catalogue, ["stranger"], max_per_category=2)
    assert len(result["items"]) == 4 * 2
    assert result["short"] == {"missing": 10 - 8, "rules": ["max_per_category"],
                               "reason": "8 of 10; left out: more than the most of one category"}  # fmt: skip


def test_a_tenth_of_the_ranks_is_explored_and_a_seed_repeats_the_draw(api_with_catalogue: Any) -> None:
    options = {"n": 10, "explore": 0.1, "seed": 3}
    whole, explored = recommend(api_with_catalogue, n=50), recommend(api_with_catalogue, **options)
    for before, after in zip(whole, explored, strict=True):
        assert products(after)[:9] == products(before)[:9]
        assert after["items"][9]["source"] == "explore"
        assert after["items"][9]["reason"] == "something else, to learn what they like"
        assert products(after)[9] in products(before)[10:]
    assert recommend(api_with_catalogue, **options) == explored
    assert recommend(api_with_catalogue, ["c007"], **options) == [explored[7]]
    assert [products(result)[9] for result in recommend(api_with_catalogue, **options | {"seed": 4})] != [
        products(r)[9] for r in explored
    ]


# Short and empty lists ------------------------------------------------------------------------------------


def test_a_short_history_gives_a_short_list_without_another_rule(api_with_catalogue: Any) -> None:
    (result,) = recommend(api_with_catalogue, ["c000"], list="again", n=50)
    assert result["short"]["rules"] == [] or result["short"]["rules"] == ["repurchase"]
    assert result["short"]["missing"] == 50 - len(result["items"])


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_excluding_everything_gives_an_empty_list_with_a_reason(api_with_catalogue: Any, name: str) -> None:
    rules = {"exclude_departments": ["food", "home"], "list": name}
    for result in recommend(api_with_catalogue, ["c000", "stranger", "quiet"], **rules):
        assert result["items"] == []
        assert result["short"]["missing"] == 10
        assert result["short"]["rules"][0] == "exclude_departments"
        assert result["short"]["reason"].startswith("0 of 10; left out: departments that are left out")


def test_the_first_rule_that_excludes_a_product_is_named(api_with_catalogue: Any) -> None:
    rules = {"categories": ["milk"], "exclude_categories": ["bread"], "in_stock_only": True, "n": 50, "list": "new"}
    (result,) = recommend(api_with_catalogue, ["stranger"], **rules)
    assert result["short"]["rules"] == ["categories", "in_stock_only"]  # the filter on milk has excluded bread already


def test_unknown_ids_and_labels_are_ignored_and_counted_in_the_notes(api_with_catalogue: Any) -> None:
    rules = {
        "exclude_product_ids": ["p00", "nobody's", "none"], "exclude_categories": ["tea"], "pin": ["x"],
        "boost": {"y": 2, "organic": 1}, "exclude_departments": ["food", "z"],
    }  # fmt: skip
    expected, results = (
        recommend(api_with_catalogue, ["c003"], exclude_departments=["food"]),
        recommend(api_with_catalogue, ["c003"], **rules),
    )
    assert products(results[0]) == products(expected[0])
    assert results[0]["notes"] == [
        "exclude_product_ids: 2 of 3 are no products of this shop",
        "exclude_categories: 1 of 1 is not in the catalogue",
        "exclude_departments: 1 of 2 is not in the catalogue",
        "boost: 1 of 2 is carried by no product",
        "pin: 1 of 1 is carried by no product",
    ]


@pytest.mark.parametrize(
    "invalid",
    [{"n": 0}, {"n": 10_000}, {"max_per_category": 0}, {"explore": 0.9}, {"explore": -1}, {"min_margin": 2},
     {"boost": {"organic": -1}}, {"boost": ["organic"]}, {"pin": "season"}, {"exclude_categories": "milk"},
     {"in_stock_only": "perhaps"}, {"seed": -1}, {"exclude_category": ["milk"]}],
    ids=str,
)  # fmt: skip
def test_invalid_rules_are_refused(api_with_catalogue: Any, invalid: dict[str, Any]) -> None:
    assert api_with_catalogue.post("/v1/recommendations", {"customer_ids": ["c000"], **invalid}).status_code == 422


def test_a_request_for_one_customer_takes_the_same_rules(api_with_catalogue: Any) -> None:
    exclusions = "exclude_categories=milk&pin=season&exclude_product_ids=p00&exclude_departments=home&categories=bread"
    query = f"{exclusions}&categories=milk&max_per_category=3&in_stock_only=true&explore=0.2&seed=1&min_margin=0.3"
    (alone,) = api_with_catalogue.read(f"/v1/customers/c005/recommendations?{query}").json()["results"]
    (bulk,) = recommend(
        api_with_catalogue, ["c005"], exclude_categories=["milk"], pin=["season"], exclude_product_ids=["p00"],
        exclude_departments=["home"], categories=["bread", "milk"], max_per_category=3, in_stock_only=True,
        explore=0.2, seed=1, min_margin=0.3,
    )  # fmt: skip
    assert alone == bulk
    assert products(alone)[0] == "p08"


# The shop's settings --------------------------------------------------------------------------------------


def test_the_shops_rules_apply_online_in_the_nightly_run_and_in_exports(
    api_with_rules: Any, score_customers: Any
) -> None:
    from customers.reports import exports

    score_customers(api_with_rules.shop)
    table = exports.build_table(api_with_rules.shop, "recommendations")
    assert not table["product_id"].isin(SOLD_OUT).any()
    assert set(table["product_id"].map(lambda product: "?" if product == "novelty" else category(product))) == {
        "bread", "fruit", "paper",
    }  # fmt: skip
    sizes = table.assign(category=table["product_id"].map(category)).groupby(["customer_id", "list", "category"]).size()
    assert sizes.max() == 4
    days_since = load_days_since(api_with_rules)
    for customer, rows in table.groupby("customer_id"):
        assert not NEVER & set(days_since[customer]) & set(rows["product_id"])
    stored = table[(table["list"] == "any") & (table["rank"] <= 10)].groupby("customer_id")["product_id"].agg(list)
    for customer, result in zip(CUSTOMERS, recommend(api_with_rules, n=10), strict=True):
        assert products(result) == stored[customer]


def test_a_request_adds_to_the_shops_exclusions_and_may_override_its_other_rules(api_with_rules: Any) -> None:
    for result in recommend(
        api_with_rules, exclude_categories=["bread"], max_per_category=50, in_stock_only=False, explore=0
    ):
        assert {category(product) for product in products(result)} == {"fruit", "paper"}
        assert len(result["items"]) == 10
    listed = {
        product for result in recommend(api_with_rules, in_stock_only=False, n=50) for product in products(result)
    }
    assert "p30" in listed  # sold out, and requested explicitly


def test_a_request_with_rules_does_not_change_the_stored_list(api_with_rules: Any) -> None:
    (before,) = recommend(api_with_rules, ["c000"])
    recommend(api_with_rules, ["c000"], exclude_categories=["bread"], pin=["season"])
    shown = api_with_rules.read("/v1/customers/c000/scores").json()["scores"]["recommender"]["items"]
    assert [item["product_id"] for item in shown] == products(before)[:10]


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_a_shop_that_excludes_all_products_answers_with_the_reason(
    api_excluding_all: Any, score_customers: Any, name: str
) -> None:
    score_customers(api_excluding_all.shop)
    rules = {"explore": 0.5, "max_per_category": 1, "pin": ["season", "launch"], "boost": {"organic": 2}}
    for more_rules in ({}, rules, {"exclude_categories": ["milk"]}):
        for result in recommend(api_excluding_all, ["c000", "stranger"], list=name, **more_rules):
            assert result["items"] == []
            assert "exclude_departments" in result["short"]["rules"]
