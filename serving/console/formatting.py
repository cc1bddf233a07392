"""Formatting of days, money, shares and names on the console pages."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
CURRENCY_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "CNY": "¥", "JPY": "¥", "INR": "₹", "KRW": "₩"}


def format_day(at: datetime | date | None, zone: ZoneInfo | None = None) -> str:
    """A day in the shop's time zone: 5 Jan 2018."""
    if at is None:
        return "–"
    on = at.astimezone(zone).date() if isinstance(at, datetime) else at
    return f"{on.day} {MONTHS[on.month - 1]} {on.year}"


def format_date_time(at: datetime, zone: ZoneInfo) -> str:
    """A day and time in the shop's time zone: 5 Jan 2018, 09:30."""
    return f"{format_day(at, zone)}, {at.astimezone(zone):%H:%M}"


def format_short_day(on: date) -> str:
    """A day without its year: 5 Jan."""
    return f"{on.day} {MONTHS[on.month - 1]}"


def format_percent(share: float) -> str:
    """A share as a whole percentage; a share that is not exactly 0 or 1 is never shown as 0 or 100 %."""
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 < share < 1:
        return "> 99 %"
    return f"{round(100 * share)} %"


def format_money(amount: str | float | Decimal, currency: str) -> str:
    """An amount with its currency symbol and thousands separators."""
    decimal_amount = Decimal(str(amount))
    sign, size = "−" if decimal_amount < 0 else "", f"{abs(decimal_amount):,}"
    symbol = CURRENCY_SYMBOLS.get(currency)
    return f"{sign}{symbol}{size}" if symbol else f"{sign}{currency} {size}"


def format_whole_money(amount: str | float | Decimal, currency: str) -> str:
    """An amount rounded to whole units, for estimates."""
    return format_money(Decimal(str(amount)).quantize(Decimal(1)), currency)


def format_days(number: float) -> str:
    """A number of days, rounded to halves."""
    halves = round(number * 2) / 2
    text = str(int(halves)) if halves == int(halves) else f"{halves:.1f}"
    return "1 day" if text == "1" else f"{text} days"


def format_product_name(name: str) -> str:
    """A product name that is all in capitals, as tills print it, with only a first capital."""
    return name.capitalize() if len(name) > 3 and name.isupper() else name


def format_label(name: str) -> str:
    """An identifier as text: marketing_email becomes marketing email."""
    return name.replace("_", " ")


def format_full_name(profile: Mapping[str, Any] | None) -> str | None:
    """A full name; the family name comes first in Chinese, Japanese and Korean script."""
    given, family = (str((profile or {}).get(part) or "").strip() for part in ("given_name", "family_name"))
    if any(map(_is_unspaced, family or given)):
        return family + given or None
    return " ".join(filter(None, (given, family))) or None


def _is_unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("CJK", "HANGUL", "HIRAGANA", "KATAKANA"))


FILTERS: dict[str, Callable[..., Any]] = {
    "day": format_day,
    "days": format_days,
    "date_time": format_date_time,
    "money": format_money,
    "percent": format_percent,
    "label": format_label,
    "product_name": format_product_name,
    "whole_money": format_whole_money,
}
