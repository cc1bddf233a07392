"""Rhythm: how often a customer comes, on which days, and how long since they last came."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features import engine, lines

if TYPE_CHECKING:
    from feast import FeatureView

WINDOWS = (7, 14, 28, 56, 90)
PRECEDING = (28, 90)
HALF_LIVES = (14, 45, 120)
RECENT_DAYS = 90


def columns(seen: ir.Table) -> dict[str, ir.Value]:
    """Every rhythm of a customer, over the days seen from a moment (see snapshot.seen)."""
    named = {feature.__name__: feature(seen) for feature in FEATURES}
    within = {f"purchase_days_{w}d": purchase_days_aged(seen, 0, w) for w in WINDOWS}
    before = {f"purchase_days_{w}d_before": purchase_days_aged(seen, w, 2 * w) for w in PRECEDING}
    fading = {f"purchase_days_decayed_{h}d": purchase_days_decayed(seen, h) for h in HALF_LIVES}
    habit = {f"weekday_{day}_share": weekday_share(seen, day) for day in range(7)}
    return named | within | before | fading | habit


def recency_days(seen: ir.Table) -> ir.Value:
    """Days from the last purchase day to as_of, by the shop's calendar. Recency in RFM (Fader and Hardie)."""
    return seen.as_of_day.max() - seen.visit_day.max()


def tenure_days(seen: ir.Table) -> ir.Value:
    """Days from the first purchase day to as_of; T in BG/NBD."""
    return seen.as_of_day.max() - seen.visit_day.min()


def purchase_days(seen: ir.Table) -> ir.Value:
    """How many days they bought on."""
    return seen.visit.sum()


def span_days(seen: ir.Table) -> ir.Value:
    """Days from the first purchase day to the last; t_x in BG/NBD."""
    return seen.visit_day.max() - seen.visit_day.min()


def purchase_rate(seen: ir.Table) -> ir.Value:
    """Purchase days for each day since the first."""
    return engine.ratio(purchase_days(seen), tenure_days(seen))


def active_weeks_share(seen: ir.Table) -> ir.Value:
    """Share of calendar weeks, from the first to the current one, in which they came."""
    weeks = (seen.as_of_day.max() + 3) // 7 - (seen.visit_day.min() + 3) // 7 + 1
    return engine.ratio(seen.new_week.sum(), weeks)


def as_of_weekday(seen: ir.Table) -> ir.Value:
    """The shop's weekday at as_of, Monday 0: which of a customer's own days come next."""
    return engine.weekday_of(seen.as_of_day.max())


def gap_mean_days(seen: ir.Table) -> ir.Value:
    """Mean days between purchase days; NULL after a single one."""
    return engine.ratio(span_days(seen), purchase_days(seen) - 1)


def gap_std_days(seen: ir.Table) -> ir.Value:
    """Spread of the days between purchase days; NULL with fewer than two gaps."""
    gaps = seen.gap_days.count()
    spread = engine.ratio((seen.gap_days**2).sum(), gaps) - gap_mean_days(seen) ** 2
    return ibis.cases((gaps >= 2, ibis.greatest(spread, 0.0).sqrt()))


def gap_cv(seen: ir.Table) -> ir.Value:
    """Spread of the gaps for each day of the mean gap: 0 is a clock, 1 is chance."""
    return engine.ratio(gap_std_days(seen), gap_mean_days(seen))


def gap_median_days(seen: ir.Table) -> ir.Value:
    """The gap that half of their gaps exceed."""
    return seen.gap_days.median()


def gap_long_days(seen: ir.Table) -> ir.Value:
    """The gap that one in five of their gaps exceeds."""
    return seen.gap_days.quantile(0.8)


def gap_max_days(seen: ir.Table) -> ir.Value:
    """The longest they ever stayed away and came back."""
    return seen.gap_days.max()


def gap_last_days(seen: ir.Table) -> ir.Value:
    """Days between the last two purchase days."""
    return seen.gap_days.argmax(seen.visit_day)


def gap_recent_days(seen: ir.Table) -> ir.Value:
    """Mean gap of the last 90 days."""
    return seen.gap_days.mean(where=seen.age_days <= RECENT_DAYS)


def gap_trend(seen: ir.Table) -> ir.Value:
    """Recent gaps against all gaps: above 1, they come less often than they used to."""
    return engine.ratio(gap_recent_days(seen), gap_mean_days(seen))


def gap_last_ratio(seen: ir.Table) -> ir.Value:
    """The last gap against the mean gap."""
    return engine.ratio(gap_last_days(seen), gap_mean_days(seen))


def overdue_ratio(seen: ir.Table) -> ir.Value:
    """Silence against the usual gap: 2 means twice as long as usual."""
    return engine.ratio(recency_days(seen), gap_median_days(seen))


def overdue_mean_ratio(seen: ir.Table) -> ir.Value:
    """Silence against the mean gap."""
    return engine.ratio(recency_days(seen), gap_mean_days(seen))


def overdue_long_ratio(seen: ir.Table) -> ir.Value:
    """Silence against a gap that is long for them."""
    return engine.ratio(recency_days(seen), gap_long_days(seen))


def overdue_max_ratio(seen: ir.Table) -> ir.Value:
    """Silence against the longest gap they ever made good: above 1, it has never been this long."""
    return engine.ratio(recency_days(seen), gap_max_days(seen))


def purchase_days_aged(seen: ir.Table, after: int, until: int) -> ir.Value:
    """Purchase days that lie more than `after` and at most `until` days back."""
    return engine.total(seen.visit, aged(seen, after, until))


def aged(seen: ir.Table, after: int, until: int) -> ir.BooleanValue:
    """Days more than `after` and at most `until` days back; a window that begins at 0 has today in it."""
    young = seen.age_days <= until
    return young & (seen.age_days > after) if after else young


def purchase_days_decayed(seen: ir.Table, half_life_days: int) -> ir.Value:
    """Purchase days, each counted half for every half_life_days it lies back."""
    weight = engine.decayed(seen.age_days, half_life_days)
    return (weight * seen.visit).sum() / engine.STEPS_OF_A_WEIGHT


def weekday_share(seen: ir.Table, weekday: int) -> ir.Value:
    """Share of purchase days that fell on this weekday (Monday 0)."""
    return engine.ratio(engine.total(seen.visit, engine.weekday_of(seen.day) == weekday), purchase_days(seen))


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
    """What Feast is told about this family; the numbers lie in folder/rhythm/part.parquet."""
    from features import views

    return views.of_numbers("rhythm", folder, columns(lines.SEEN))
