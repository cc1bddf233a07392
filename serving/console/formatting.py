"""Wording: how days, money, shares and names are written on a page."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "CNY": "¥", "JPY": "¥", "INR": "₹", "KRW": "₩"}


def day(at: datetime | date | None, zone: ZoneInfo | None = None) -> str:
    """A day of the shop's calendar: 5 Jan 2018."""
    if at is None:
        return "–"
    on = at.astimezone(zone).date() if isinstance(at, datetime) else at
    return f"{on.day} {MONTHS[on.month - 1]} {on.year}"


def moment(at: datetime, zone: ZoneInfo) -> str:
    """A day and the time on it: 5 Jan 2018, 09:30."""
    return f"{day(at, zone)}, {at.astimezone(zone):%H:%M}"


def short_day(on: date) -> str:
    """A day whose year is plain: 5 Jan."""
    return f"{on.day} {MONTHS[on.month - 1]}"


def percent(share: float) -> str:
    """A share as people say it; what is not quite certain is never called 0 or 100 %."""
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 < share < 1:
        return "> 99 %"
    return f"{round(100 * share)} %"


def money(amount: str | float | Decimal, currency: str) -> str:
    """An amount with its currency's sign, and thousands apart."""
    exact = Decimal(str(amount))
    sign, size = "−" if exact < 0 else "", f"{abs(exact):,}"
    symbol = SYMBOLS.get(currency)
    return f"{sign}{symbol}{size}" if symbol else f"{sign}{currency} {size}"


def whole_money(amount: str | float | Decimal, currency: str) -> str:
    """An amount without its cents, where it is a guess in any case."""
    return money(Decimal(str(amount)).quantize(Decimal(1)), currency)


def days(number: float) -> str:
    """So many days."""
    halves = round(number * 2) / 2
    text = str(int(halves)) if halves == int(halves) else f"{halves:.1f}"
    return "1 day" if text == "1" else f"{text} days"


def spoken(name: str) -> str:
    """A product's name without the till's capitals."""
    return name.capitalize() if len(name) > 3 and name.isupper() else name


def plain(word: str) -> str:
    """A word of ours as people write it: marketing_email is marketing email."""
    return word.replace("_", " ")


def full_name(profile: Mapping[str, Any] | None) -> str | None:
    """What a person is called: the family's name first where names are written so."""
    given, family = (str((profile or {}).get(part) or "").strip() for part in ("given_name", "family_name"))
    if any(map(_unspaced, family or given)):
        return family + given or None
    return " ".join(filter(None, (given, family))) or None


def _unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("CJK", "HANGUL", "HIRAGANA", "KATAKANA"))


FILTERS: dict[str, Callable[..., Any]] = {
    "day": day,
    "days": days,
    "moment": moment,
    "money": money,
    "percent": percent,
    "plain": plain,
    "spoken": spoken,
    "whole_money": whole_money,
}
