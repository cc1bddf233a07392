"""Merchandising rules: read from the shop's settings, merged with those of a request, and validated."""

from pathlib import Path

import pytest

from customers import setup
from customers.shop import errors, merchandising_rules
from customers.shop import settings as shop_settings
from customers.shop.merchandising_rules import MerchandisingRules


def test_without_settings_there_are_no_rules() -> None:
    assert merchandising_rules.parse_rules({}) == MerchandisingRules()


def test_categories_and_labels_are_compared_without_case() -> None:
    assert merchandising_rules.parse_rules(
        {"exclude_categories": [" Tobacco", "TOBACCO"], "pin": ["Season"]}
    ) == MerchandisingRules(exclude_categories=("tobacco",), pin=("season",))


def test_a_request_adds_exclusions_and_replaces_every_other_rule() -> None:
    shop_rules = merchandising_rules.parse_rules(
        {"exclude_product_ids": ["p1"], "max_per_category": 3, "explore": 0.1, "in_stock_only": True}
    )
    merged = shop_rules.merged_with(
        {"exclude_product_ids": ["p2"], "max_per_category": 5, "explore": None, "categories": ["Tea"]}
    )
    assert merged == MerchandisingRules(
        exclude_product_ids=("p1", "p2"), max_per_category=5, explore=0.1, in_stock_only=True, categories=("tea",)
    )


def test_a_request_may_lift_a_rule_of_the_shop() -> None:
    assert merchandising_rules.parse_rules({"pin": ["season"], "in_stock_only": True}).merged_with(
        {"pin": [], "in_stock_only": False}
    ) == MerchandisingRules()  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_per_catgory": 3}, "max_per_catgory is not known"),
        ({"max_per_category": 0}, "max_per_category must be a whole number, at least 1"),
        ({"max_per_category": True}, "max_per_category must be a whole number"),
        ({"explore": 0.9}, "explore must be a number from 0 to 0.5"),
        ({"explore": float("nan")}, "explore must be a number"),
        ({"min_margin": "a tenth"}, "min_margin must be a number"),
        ({"in_stock_only": "yes"}, "in_stock_only must be true or false"),
        ({"pin": "season"}, "pin must be a list of words"),
        ({"exclude_product_ids": [1]}, "exclude_product_ids must be a list of words"),
        ({"boost": ["organic"]}, "boost must give each label its factor"),
        ({"boost": {"organic": -1}}, "boost must be a number from 0 to 100"),
        ("{ pin = ", "one line of TOML"),
        (["season"], "must be a table"),
    ],
)
def test_an_invalid_rule_is_named(rules: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merchandising_rules.parse_rules(rules)


def test_the_settings_of_a_shop_hold_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = setup.init_home(tmp_path / "home")
    assert opened.recommendations == MerchandisingRules()
    with (opened.home / "regulars.toml").open("a") as settings:
        settings.write("\n[recommendations]\nmax_per_category = 2\nboost = { organic = 1.5 }\n")
    assert shop_settings.open_shop(opened.home).recommendations == MerchandisingRules(
        max_per_category=2, boost=(("organic", 1.5),)
    )
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", "{ explore = 0.1 }")
    assert shop_settings.open_shop(opened.home).recommendations == MerchandisingRules(explore=0.1)
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", "{ explore = 2 }")
    with pytest.raises(errors.ShopError, match=r"recommendations: explore must be a number from 0 to 0\.5"):
        shop_settings.open_shop(opened.home)


def test_the_example_rules_in_new_settings_are_valid(tmp_path: Path) -> None:
    text = (setup.init_home(tmp_path / "home").home / "regulars.toml").read_text()
    lines = text[text.index("# [recommendations]") :].splitlines()
    example = "\n".join(line.removeprefix("# ") for line in lines if line)
    with (tmp_path / "home" / "regulars.toml").open("a") as settings:
        settings.write(example)
    assert shop_settings.open_shop(tmp_path / "home").recommendations == MerchandisingRules(
        exclude_product_ids=("gift-card",), exclude_categories=("cigarettes",), exclude_departments=("fuel",),
        in_stock_only=True, min_margin=0.1, boost=(("organic", 1.5),), pin=("season",), max_per_category=3, explore=0.1,
    )  # fmt: skip
