"""Facts: how often a customer comes and what they pay, against what is usual for themselves."""

from __future__ import annotations

import math

from customers.reasons import ago
from serving.sentences import Family, Told, days, every, number

# Silence: how long ago they came, against how often they do ----------------------------------------------------


def overdue(told: Told) -> str | None:
    """Longer ago than usual."""
    gap, silent = told("gap_median_days"), told("recency_days")
    if not silent > gap >= 1:
        return None
    return f"comes about {every(gap)}, silent for {number(silent)}{', longer than ever before' * longest(told)}"


def longest(told: Told) -> bool:
    """Whether they never stayed away this long."""
    return told("recency_days") > told("gap_max_days")


def once(told: Told) -> str | None:
    """A single visit has no gap to compare with."""
    silent = told("recency_days")
    return None if told("gap_median_days") >= 1 or not silent >= 0 else f"bought only once, {ago(silent)}"


def begun(told: Told) -> str | None:
    """Somebody new, who may well come again."""
    silent = told("recency_days")
    new = not told("gap_median_days") >= 1 and 0 <= silent <= told.horizon_days / 2
    return f"bought for the first time {ago(silent)}" if new else None


def in_time(told: Told) -> str | None:
    """No longer ago than usual."""
    gap, silent = told("gap_median_days"), told("recency_days")
    return f"comes about {every(gap)}, last bought {ago(silent)}" if gap >= 1 and silent <= gap else None


def come_back(told: Told) -> str | None:
    """They were away for longer before."""
    away = told("gap_max_days")
    return f"has stayed away for {days(away)} before and come back" if away >= told("recency_days") else None


# How often they come, over all the time ------------------------------------------------------------------------


def seldom(told: Told) -> str | None:
    """So seldom that a horizon without them is nothing special."""
    bought, tenure = told("purchase_days"), told("tenure_days")
    if not 2 <= bought < 3 * tenure / told.horizon_days:
        return None
    return f"bought on only {number(bought)} of the {days(tenure)} since they first came"


def frequent(told: Told) -> str | None:
    """So often that a horizon without them would be unusual."""
    bought, tenure = told("purchase_days"), told("tenure_days")
    if not (bought >= 3 and tenure >= 1 and bought >= 2 * tenure / told.horizon_days):
        return None
    return f"bought on {number(bought)} of the {days(tenure)} since they first came"


# Whether they come less than they did --------------------------------------------------------------------------


def rarer(told: Told) -> str | None:
    """Fewer days than in the weeks before."""
    now, before = _compared(told, "purchase_days")
    return _of_days(told, now, before) if now < before else None


def oftener(told: Told) -> str | None:
    """More days than in the weeks before."""
    now, before = _compared(told, "purchase_days")
    return _of_days(told, now, before) if now > before else None


def steady(told: Told) -> str | None:
    """As many, or somebody too new to compare with themselves."""
    now, before = told(f"purchase_days_{told.window}d"), told(f"purchase_days_{told.window}d_before")
    same = now == before if told.knows(2 * told.window) else True
    return f"bought on {days(now)} of the last {told.window}" if now >= 2 and same else None


def slower(told: Told) -> str | None:
    """Gaps of late are longer than all of them."""
    lately, usual = told("gap_recent_days"), told("gap_mean_days")
    return _pace(lately, usual) if lately >= 1.1 * usual >= 1.1 else None


def faster(told: Told) -> str | None:
    """Gaps of late are shorter than all of them."""
    lately, usual = told("gap_recent_days"), told("gap_mean_days")
    return _pace(lately, usual) if 1 <= lately <= 0.9 * usual else None


def last_gap_long(told: Told) -> str | None:
    """The last gap was a long one."""
    last, usual = told("gap_last_days"), told("gap_median_days")
    return _apart(last, usual) if last >= 1.5 * usual >= 1.5 else None


def last_gap_short(told: Told) -> str | None:
    """The last gap was a short one."""
    last, usual = told("gap_last_days"), told("gap_median_days")
    return _apart(last, usual) if usual >= 1.5 * last >= 1.5 else None


def _of_days(told: Told, now: float, before: float) -> str:
    window, lately, earlier = told.window, days(now) if now else "none", number(before) if before else "none"
    return f"bought on {lately} of the last {window}, on {earlier} of the {window} before"


def _pace(lately: float, usual: float) -> str | None:
    """Both paces, where they differ as they are told."""
    now, always = every(lately), every(usual)
    return None if now == always else f"lately came {now}, over all the time {always}"


def _apart(last: float, usual: float) -> str:
    return f"the last two visits were {days(last)} apart, usually {number(usual)}"


# What they pay -------------------------------------------------------------------------------------------------


def less(told: Told) -> str | None:
    """They spent less than in the weeks before; who spent nothing at all is told of by their visits."""
    now, before = _compared(told, "spend")
    return _money(told, "less", 1 - now / before) if 0 < now <= 0.95 * before else None


def more(told: Told) -> str | None:
    """They spent more than in the weeks before."""
    now, before = _compared(told, "spend")
    return _money(told, "more", now / before - 1) if now >= 1.05 * before > 0 else None


def small_basket(told: Told) -> str | None:
    """The last basket was a small one."""
    return _basket(told) if told("basket_value_last") <= 0.8 * told("basket_value_mean") else None


def large_basket(told: Told) -> str | None:
    """The last basket was a large one."""
    return _basket(told) if told("basket_value_last") >= 1.2 * told("basket_value_mean") else None


def _compared(told: Told, what: str) -> tuple[float, float]:
    """Of the last window and the one before it; nothing of somebody who is too new for that."""
    now, before = told(f"{what}_{told.window}d"), told(f"{what}_{told.window}d_before")
    return (now, before) if told.knows(2 * told.window) else (math.nan, math.nan)


def _money(told: Told, which: str, share: float) -> str:
    return f"spent {round(100 * share)} % {which} in the last {told.window} days than in the {told.window} before"


def _basket(told: Told) -> str | None:
    last, usual = told("basket_value_last"), told("basket_value_mean")
    return f"the last basket was worth {round(100 * last / usual)} % of the usual one" if usual > 0 <= last else None


SILENCE = Family(bad=(overdue, once), good=(in_time, begun, come_back))
OFTEN = Family(bad=(seldom, once), good=(frequent,))
LATELY = Family(bad=(rarer, slower, last_gap_long), good=(oftener, faster, last_gap_short, steady))
SPENDING = Family(bad=(less, small_basket), good=(more, large_basket))
