"""Spend features: net spend per purchase day, basket and time window, with discounts and returns."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features.engine import expressions, ledger_lines
from features.engine.ledger_lines import MONEY_STEPS
from features.families import recency_frequency

if TYPE_CHECKING:
    from feast import FeatureView

WINDOWS = (7, 28, 90)
HALF_LIVES = (14, 45, 120)
DECAYED_STEPS = 2.0**20  # weighted amounts are summed in these fractions of a ten-thousandth


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """Every spend feature by name, in the shop's currency, over the days before the cutoff."""
    named = {feature.__name__: feature(history) for feature in FEATURES}
    within = {f"spend_{w}d": spend_between(history, 0, w) for w in WINDOWS}
    before = {f"spend_{w}d_before": spend_between(history, w, 2 * w) for w in WINDOWS}
    trend = {f"spend_trend_{w}d": spend_trend(history, w) for w in WINDOWS[1:]}
    decayed = {f"spend_decayed_{h}d": spend_decayed(history, h) for h in HALF_LIVES}
    return named | within | before | trend | decayed


def spend_total(history: ir.Table) -> ir.Value:
    """Total net spend: sales less returns."""
    return history.spend.sum() / MONEY_STEPS


def spend_day_mean(history: ir.Table) -> ir.Value:
    """Net spend per purchase day."""
    return expressions.ratio(spend_total(history), history.visit.sum())


def spend_day_max(history: ir.Table) -> ir.Value:
    """Largest net spend of a day."""
    return history.spend.max() / MONEY_STEPS


def spend_day_last(history: ir.Table) -> ir.Value:
    """Net spend of the last purchase day."""
    return _on_last_purchase_day(history, history.spend) / MONEY_STEPS


def spend_last_ratio(history: ir.Table) -> ir.Value:
    """Net spend of the last purchase day over the mean purchase day."""
    return expressions.ratio(spend_day_last(history), spend_day_mean(history))


def baskets_total(history: ir.Table) -> ir.Value:
    """Number of baskets."""
    return history.baskets.sum()


def basket_value_mean(history: ir.Table) -> ir.Value:
    """Mean sales value of a basket, before returns."""
    return expressions.ratio(history.sales.sum() / MONEY_STEPS, baskets_total(history))


def basket_value_std(history: ir.Table) -> ir.Value:
    """Standard deviation of basket value; NULL with fewer than two baskets."""
    spread = (
        expressions.ratio(history.squares.sum() / MONEY_STEPS**2, baskets_total(history))
        - basket_value_mean(history) ** 2
    )
    return ibis.cases((baskets_total(history) >= 2, ibis.greatest(spread, 0.0).sqrt()))


def basket_value_last(history: ir.Table) -> ir.Value:
    """Mean basket value on the last purchase day."""
    return expressions.ratio(
        _on_last_purchase_day(history, history.sales) / MONEY_STEPS, _on_last_purchase_day(history, history.baskets)
    )


def basket_lines_mean(history: ir.Table) -> ir.Value:
    """Mean number of lines per basket."""
    return expressions.ratio(history.lines.sum(), baskets_total(history))


def basket_lines_last(history: ir.Table) -> ir.Value:
    """Mean number of lines per basket on the last purchase day."""
    return expressions.ratio(
        _on_last_purchase_day(history, history.lines), _on_last_purchase_day(history, history.baskets)
    )


def basket_pieces_mean(history: ir.Table) -> ir.Value:
    """Mean quantity per basket, whatever its unit."""
    return expressions.ratio(history.pieces.sum() / MONEY_STEPS, baskets_total(history))


def baskets_per_day(history: ir.Table) -> ir.Value:
    """Mean number of baskets per purchase day."""
    return expressions.ratio(baskets_total(history), history.visit.sum())


def discount_share(history: ir.Table) -> ir.Value:
    """Discounts as a share of the full price."""
    return expressions.ratio(history.saved.sum(), history.sales.sum() + history.saved.sum())


def discount_share_90d(history: ir.Table) -> ir.Value:
    """Discount share over the last 90 days."""
    recent = recency_frequency.is_age_between(history, 0, 90)
    saved = history.saved.sum(where=recent)
    return expressions.ratio(saved, history.sales.sum(where=recent) + saved)


def return_share(history: ir.Table) -> ir.Value:
    """Returns as a share of sales, in money."""
    return expressions.ratio(history.returned.sum(), history.sales.sum())


def return_days(history: ir.Table) -> ir.Value:
    """Number of days with a return."""
    return (history.returned > 0).sum()


def spend_between(history: ir.Table, after: int, until: int) -> ir.Value:
    """Net spend more than `after` and at most `until` days back; 0 without any."""
    return expressions.sum_or_zero(history.spend, recency_frequency.is_age_between(history, after, until)) / MONEY_STEPS


def spend_trend(history: ir.Table, days: int) -> ir.Value:
    """Spend of the last `days` days as a share of the last 2 * `days`: 0.5 is steady; NULL where that is 0."""
    late, early = spend_between(history, 0, days), spend_between(history, days, 2 * days)
    return expressions.ratio(late, late + early)


def spend_decayed(history: ir.Table, half_life_days: int) -> ir.Value:
    """Net spend with exponential decay: each day's amount counts half for every half_life_days of age."""
    weight = ibis.literal(0.5) ** (history.age_days / half_life_days)
    return expressions.to_whole_steps(weight * history.spend, DECAYED_STEPS).sum() / (DECAYED_STEPS * MONEY_STEPS)


def _on_last_purchase_day(history: ir.Table, column: ir.Column) -> ir.Scalar:
    return column.argmax(history.visit_day)


FEATURES = (
    spend_total,
    spend_day_mean,
    spend_day_max,
    spend_day_last,
    spend_last_ratio,
    baskets_total,
    basket_value_mean,
    basket_value_std,
    basket_value_last,
    basket_lines_mean,
    basket_lines_last,
    basket_pieces_mean,
    baskets_per_day,
    discount_share,
    discount_share_90d,
    return_share,
    return_days,
)


def view(folder: Path) -> "FeatureView":
    """The Feast view of spend; its numbers are in folder/spend/part.parquet."""
    from features.families import feast_views

    return feast_views.numeric_view("spend", folder, columns(ledger_lines.VISIBLE_DAYS))
