"""Wishes: what a shop, or whoever asks, wants of a list of products beside what the models say.

The shop's own stand in its settings, table `[recommendations]`; a question may add to them. What they do, and in
which order, is told in `serving/rules.py`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

TOML = """
# [recommendations]                           # what holds for every list of products
# exclude_product_ids = ["gift-card"]
# exclude_categories = ["CIGARETTES"]
# exclude_departments = ["FUEL"]
# in_stock_only = true                        # nothing whose stock is counted and gone
# min_margin = 0.1                            # (price - cost) / price; where either is unknown, a product may stay
# boost = { organic = 1.5 }                   # label of a product = factor on its score
# pin = ["season"]                            # labels that come first
# max_per_category = 3
# explore = 0.1                               # so many of ten places for something outside the top
"""
MOST_BOOST = 100.0
MOST_EXPLORE = 0.5


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a list. Words for categories, departments and labels are held in lower case.

    `categories` are the only ones wanted, empty for all. `min_margin` is a share of the price. `boost` holds labels
    and their factors, `pin` labels. `explore` is a share of the places. `seed` draws what is explored; None for a
    draw that stays the same until the customer's figures change.
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

    def beside(self, asked: Mapping[str, Any]) -> Wishes:
        """With what a question says: what it leaves out is left out too, any other wish takes the shop's place.

        Raises ValueError, with the wish's name, for one that makes no sense.
        """
        said = {name: READERS[name](name, value) for name, value in asked.items() if value is not None}
        both = {name: (*getattr(self, name), *said[name]) for name in said if name.startswith("exclude_")}
        return replace(self, **said | both)


def read(table: Any) -> Wishes:
    """The shop's own wishes, from its settings: a table, or the text of one. ValueError says what to correct."""
    if isinstance(table, str):
        table = _parsed(table)
    if not isinstance(table, Mapping):
        raise ValueError("recommendations must be a table, as in: [recommendations]")
    unknown = sorted(set(table) - set(SETTABLE))
    if unknown:
        raise ValueError(f"recommendations: {', '.join(unknown)} is not known; there are {', '.join(SETTABLE)}")
    try:
        return Wishes().beside(table)
    except ValueError as error:
        raise ValueError(f"recommendations: {error}") from None


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"recommendations = {text}")["recommendations"]
    except tomllib.TOMLDecodeError:
        raise ValueError("recommendations must be one line of TOML, as in: { max_per_category = 3 }") from None


def _ids(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(each, str) for each in _listed(name, value)):
        raise ValueError(f'{name} must be a list of words, as in: ["one", "two"]')
    return tuple(dict.fromkeys(value))


def _words(name: str, value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip().casefold() for word in _ids(name, value)))


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'{name} must be a list of words, as in: ["one", "two"]')
    return list(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value


def _number(least: float, most: float) -> Callable[[str, Any], float]:
    def number(name: str, value: Any) -> float:
        sound = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not sound or not math.isfinite(value) or not least <= value <= most:
            raise ValueError(f"{name} must be a number from {least:g} to {most:g}")
        return float(value)

    return number


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1")
    return value


def _seed(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be a whole number, at least 0")
    return value


def _factors(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must give each label its factor, as in: {{ organic = 1.5 }}")
    factor = _number(0.0, MOST_BOOST)
    return tuple(sorted((str(label).strip().casefold(), factor(name, times)) for label, times in value.items()))


READERS: dict[str, Callable[[str, Any], Any]] = {
    "exclude_product_ids": _ids,
    "categories": _words,
    "exclude_categories": _words,
    "exclude_departments": _words,
    "in_stock_only": _flag,
    "min_margin": _number(-10.0, 1.0),
    "boost": _factors,
    "pin": _words,
    "max_per_category": _whole,
    "explore": _number(0.0, MOST_EXPLORE),
    "seed": _seed,
}
#: A shop that sells of some categories alone says so by what it loads; and a seed is of one question.
SETTABLE = tuple(field.name for field in fields(Wishes) if field.name not in ("categories", "seed"))
