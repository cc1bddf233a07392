"""Recency and frequency features: purchase days, gaps between them, weekdays, and days since the last purchase."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features.engine import expressions, ledger_lines

if TYPE_CHECKING:
    from feast import FeatureView

WINDOWS = (7, 14, 28, 56, 90)
PRECEDING_WINDOWS = (28, 90)
HALF_LIVES = (14, 45, 120)
RECENT_DAYS = 90


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """Every recency and frequency feature by name, over the days before the cutoff (see ledger_lines.VISIBLE_DAYS)."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    within = {f"purchase_days_{w}d": purchase_days_between(history, 0, w) for w in WINDOWS}
    before = {f"purchase_days_{w}d_before": purchase_days_between(history, w, 2 * w) for w in PRECEDING_WINDOWS}
    decayed = {f"purchase_days_decayed_{h}d": purchase_days_decayed(history, h) for h in HALF_LIVES}
    weekday_shares = {f"weekday_{day}_share": weekday_share(history, day) for day in range(7)}
    return named | within | before | decayed | weekday_shares


def recency_days(history: ir.Table) -> ir.Value:
    """Local days from the last purchase day to as_of. Recency in RFM (Fader and Hardie)."""
    return history.as_of_day.max() - history.visit_day.max()


def tenure_days(history: ir.Table) -> ir.Value:
    """Local days from the first purchase day to as_of; T in BG/NBD."""
    return history.as_of_day.max() - history.visit_day.min()


def purchase_days(history: ir.Table) -> ir.Value:
    """Number of purchase days."""
    return history.visit.sum()


def span_days(history: ir.Table) -> ir.Value:
    """Days from the first purchase day to the last; t_x in BG/NBD."""
    return history.visit_day.max() - history.visit_day.min()


def purchase_rate(history: ir.Table) -> ir.Value:
    """Purchase days per day since the first."""
    return expressions.ratio(purchase_days(history), tenure_days(history))


def active_weeks_share(history: ir.Table) -> ir.Value:
    """Share of calendar weeks with a purchase, from the first purchase to the current week."""
    weeks = (history.as_of_day.max() + 3) // 7 - (history.visit_day.min() + 3) // 7 + 1
    return expressions.ratio(history.new_week.sum(), weeks)


def as_of_weekday(history: ir.Table) -> ir.Value:
    """Local weekday of as_of, Monday 0: it determines which of the customer's usual weekdays come next."""
    return expressions.weekday_of(history.as_of_day.max())


def gap_mean_days(history: ir.Table) -> ir.Value:
    """Mean days between purchase days; NULL after a single one."""
    return expressions.ratio(span_days(history), purchase_days(history) - 1)


def gap_std_days(history: ir.Table) -> ir.Value:
    """Standard deviation of the gaps, in days; NULL with fewer than two gaps."""
    gaps = history.gap_days.count()
    spread = expressions.ratio((history.gap_days**2).sum(), gaps) - gap_mean_days(history) ** 2
    return ibis.cases((gaps >= 2, ibis.greatest(spread, 0.0).sqrt()))


def gap_cv(history: ir.Table) -> ir.Value:
    """Coefficient of variation of the gaps: 0 is regular, 1 is a Poisson process."""
    return expressions.ratio(gap_std_days(history), gap_mean_days(history))


def gap_median_days(history: ir.Table) -> ir.Value:
    """Median gap in days."""
    return history.gap_days.median()


def gap_long_days(history: ir.Table) -> ir.Value:
    """80th percentile of the gaps, in days."""
    return history.gap_days.quantile(0.8)


def gap_max_days(history: ir.Table) -> ir.Value:
    """Longest gap in days."""
    return history.gap_days.max()


def gap_last_days(history: ir.Table) -> ir.Value:
    """Days between the last two purchase days."""
    return history.gap_days.argmax(history.visit_day)


def gap_recent_days(history: ir.Table) -> ir.Value:
    """Mean of the gaps that ended in the last 90 days."""
    return history.gap_days.mean(where=history.age_days <= RECENT_DAYS)


def gap_trend(history: ir.Table) -> ir.Value:
    """Mean recent gap over mean gap: above 1, purchases have become less frequent."""
    return expressions.ratio(gap_recent_days(history), gap_mean_days(history))


def gap_last_ratio(history: ir.Table) -> ir.Value:
    """Last gap over mean gap."""
    return expressions.ratio(gap_last_days(history), gap_mean_days(history))


def overdue_ratio(history: ir.Table) -> ir.Value:
    """Recency over the median gap: 2 means twice as long as usual."""
    return expressions.ratio(recency_days(history), gap_median_days(history))


def overdue_mean_ratio(history: ir.Table) -> ir.Value:
    """Recency over the mean gap."""
    return expressions.ratio(recency_days(history), gap_mean_days(history))


def overdue_long_ratio(history: ir.Table) -> ir.Value:
    """Recency over the 80th percentile of the gaps."""
    return expressions.ratio(recency_days(history), gap_long_days(history))


def overdue_max_ratio(history: ir.Table) -> ir.Value:
    """Recency over the longest gap: above 1, the time since the last purchase is the longest ever."""
    return expressions.ratio(recency_days(history), gap_max_days(history))


def purchase_days_between(history: ir.Table, after: int, until: int) -> ir.Value:
    """Number of purchase days more than `after` and at most `until` days back."""
    return expressions.sum_or_zero(history.visit, is_age_between(history, after, until))


def is_age_between(history: ir.Table, after: int, until: int) -> ir.BooleanValue:
    """Whether a day is more than `after` and at most `until` days back; with `after` 0, the day of as_of counts."""
    is_recent = history.age_days <= until
    return is_recent & (history.age_days > after) if after else is_recent


def purchase_days_decayed(history: ir.Table, half_life_days: int) -> ir.Value:
    """Purchase days with exponential decay: each counts half for every half_life_days of age."""
    weight = expressions.decay_weight(history.age_days, half_life_days)
    return (weight * history.visit).sum() / expressions.WEIGHT_STEPS


def weekday_share(history: ir.Table, weekday: int) -> ir.Value:
    """Share of purchase days on this weekday (Monday 0)."""
    return expressions.ratio(
        expressions.sum_or_zero(history.visit, expressions.weekday_of(history.day) == weekday), purchase_days(history)
    )


FEATURES = (
    recency_days,
    tenure_days,
    purchase_days,
    span_days,
    purchase_rate,
    active_weeks_share,
    as_of_weekday,
    gap_mean_days,
    gap_std_days,
    gap_cv,
    gap_median_days,
    gap_long_days,
    gap_max_days,
    gap_last_days,
    gap_recent_days,
    gap_trend,
    gap_last_ratio,
    overdue_ratio,
    overdue_mean_ratio,
    overdue_long_ratio,
    overdue_max_ratio,
)


def view(folder: Path) -> "FeatureView":
    """The Feast view of recency and frequency; its numbers are in folder/rhythm/part.parquet."""
    from features.families import feast_views

    return feast_views.numeric_view("rhythm", folder, columns(ledger_lines.VISIBLE_DAYS))
