"""Merchandising rules: filters, boosts, pins and caps that a shop or a request applies to lists of products.

The shop's own rules are in its settings, table `[recommendations]`; a request may add to them. Their effect and their
order are in `serving/recommendations/merchandising.py`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

CONFIG_TEMPLATE = """
# [recommendations]                           # rules for every list of products
# exclude_product_ids = ["gift-card"]
# exclude_categories = ["CIGARETTES"]
# exclude_departments = ["FUEL"]
# in_stock_only = true                        # no product whose stock is counted and used up
# min_margin = 0.1                            # (price - cost) / price; a product without both may stay
# boost = { organic = 1.5 }                   # label of a product = factor on its score
# pin = ["season"]                            # labels that come first
# max_per_category = 3
# explore = 0.1                               # share of the places for products outside the top
"""
MAX_BOOST = 100.0
MAX_EXPLORE = 0.5


@dataclass(frozen=True, slots=True)
class MerchandisingRules:
    """The rules for one list of products; names of categories, departments and labels are in lower case.

    `categories` are the only ones allowed, empty for all. `min_margin` is a share of the price. `boost` holds (label,
    factor on the score), `pin` the labels that come first. `explore` is the share of places for products outside the
    top. `seed` seeds their draw; None for a draw that stays the same until the customer's features change.
    """

    exclude_product_ids: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    exclude_categories: tuple[str, ...] = ()
    exclude_departments: tuple[str, ...] = ()
    in_stock_only: bool = False
    min_margin: float | None = None
    boost: tuple[tuple[str, float], ...] = ()
    pin: tuple[str, ...] = ()
    max_per_category: int | None = None
    explore: float = 0.0
    seed: int | None = None

    def merged_with(self, request: Mapping[str, Any]) -> MerchandisingRules:
        """These rules combined with a request: its exclusions are added, any other rule of it replaces the shop's.

        Raises ValueError, with the name of the rule, for an invalid value.
        """
        parsed = {name: PARSERS[name](name, value) for name, value in request.items() if value is not None}
        combined = {name: (*getattr(self, name), *parsed[name]) for name in parsed if name.startswith("exclude_")}
        return replace(self, **parsed | combined)


def parse_rules(table: Any) -> MerchandisingRules:
    """The shop's own rules from its settings: a table, or its text as one line of TOML.

    Raises ValueError where the table or a value is invalid; the message names the correction.
    """
    if isinstance(table, str):
        table = _parse_toml(table)
    if not isinstance(table, Mapping):
        raise ValueError("recommendations must be a table, as in: [recommendations]")
    unknown = sorted(set(table) - set(SETTING_NAMES))
    if unknown:
        raise ValueError(f"recommendations: {', '.join(unknown)} is not known; there are {', '.join(SETTING_NAMES)}")
    try:
        return MerchandisingRules().merged_with(table)
    except ValueError as error:
        raise ValueError(f"recommendations: {error}") from None


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(f"recommendations = {text}")["recommendations"]
    except tomllib.TOMLDecodeError:
        raise ValueError("recommendations must be one line of TOML, as in: { max_per_category = 3 }") from None


def _parse_ids(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(each, str) for each in _parse_list(name, value)):
        raise ValueError(f'{name} must be a list of words, as in: ["one", "two"]')
    return tuple(dict.fromkeys(value))


def _parse_names(name: str, value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip().casefold() for word in _parse_ids(name, value)))


def _parse_list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'{name} must be a list of words, as in: ["one", "two"]')
    return list(value)


def _parse_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value


def _number_parser(minimum: float, maximum: float) -> Callable[[str, Any], float]:
    def parse_number(name: str, value: Any) -> float:
        is_valid = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_valid or not math.isfinite(value) or not minimum <= value <= maximum:
            raise ValueError(f"{name} must be a number from {minimum:g} to {maximum:g}")
        return float(value)

    return parse_number


def _parse_count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1")
    return value


def _parse_seed(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be a whole number, at least 0")
    return value


def _parse_factors(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must give each label its factor, as in: {{ organic = 1.5 }}")
    parse_factor = _number_parser(0.0, MAX_BOOST)
    return tuple(
        sorted((str(label).strip().casefold(), parse_factor(name, multiplier)) for label, multiplier in value.items())
    )


PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "exclude_product_ids": _parse_ids,
    "categories": _parse_names,
    "exclude_categories": _parse_names,
    "exclude_departments": _parse_names,
    "in_stock_only": _parse_flag,
    "min_margin": _number_parser(-10.0, 1.0),
    "boost": _parse_factors,
    "pin": _parse_names,
    "max_per_category": _parse_count,
    "explore": _number_parser(0.0, MAX_EXPLORE),
    "seed": _parse_seed,
}
#: Not in the settings: `categories`, since a shop limits them by the products it loads, and `seed`, for one request.
SETTING_NAMES = tuple(field.name for field in fields(MerchandisingRules) if field.name not in ("categories", "seed"))
