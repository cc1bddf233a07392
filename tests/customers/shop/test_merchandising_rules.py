"""What a shop wants of its lists: its settings say it once, a question may add to it, and nonsense is named."""

from pathlib import Path

import pytest

from customers import setup
from customers.shop import errors, merchandising_rules
from customers.shop import settings as shop_settings
from customers.shop.merchandising_rules import MerchandisingRules


def test_a_shop_that_says_nothing_wants_nothing() -> None:
    assert merchandising_rules.parse_rules({}) == MerchandisingRules()


def test_words_are_the_same_whatever_their_capitals() -> None:
    assert merchandising_rules.parse_rules(
        {"exclude_categories": [" Tobacco", "TOBACCO"], "pin": ["Season"]}
    ) == MerchandisingRules(exclude_categories=("tobacco",), pin=("season",))


def test_what_a_question_leaves_out_is_left_out_too_and_any_other_wish_takes_the_shops_place() -> None:
    ours = merchandising_rules.parse_rules(
        {"exclude_product_ids": ["p1"], "max_per_category": 3, "explore": 0.1, "in_stock_only": True}
    )
    both = ours.merged_with(
        {"exclude_product_ids": ["p2"], "max_per_category": 5, "explore": None, "categories": ["Tea"]}
    )
    assert both == MerchandisingRules(
        exclude_product_ids=("p1", "p2"), max_per_category=5, explore=0.1, in_stock_only=True, categories=("tea",)
    )


def test_a_question_may_lift_what_the_shop_puts_first() -> None:
    assert merchandising_rules.parse_rules({"pin": ["season"], "in_stock_only": True}).merged_with(
        {"pin": [], "in_stock_only": False}
    ) == MerchandisingRules()  # fmt: skip


@pytest.mark.parametrize(
    ("said", "named"),
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
def test_a_wish_that_makes_no_sense_is_named(said: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        merchandising_rules.parse_rules(said)


def test_a_shops_settings_hold_its_wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_settings_that_init_writes_say_how_to_wish(tmp_path: Path) -> None:
    text = (setup.init_home(tmp_path / "home").home / "regulars.toml").read_text()
    lines = text[text.index("# [recommendations]") :].splitlines()
    asked = "\n".join(line.removeprefix("# ") for line in lines if line)
    with (tmp_path / "home" / "regulars.toml").open("a") as settings:
        settings.write(asked)
    assert shop_settings.open_shop(tmp_path / "home").recommendations == MerchandisingRules(
        exclude_product_ids=("gift-card",), exclude_categories=("cigarettes",), exclude_departments=("fuel",),
        in_stock_only=True, min_margin=0.1, boost=(("organic", 1.5),), pin=("season",), max_per_category=3, explore=0.1,
    )  # fmt: skip
