"""Spend: how much a customer pays, by the trip and by the month, and what they save or bring back."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from features import engine, lines, rhythm
from features.lines import MONEY

if TYPE_CHECKING:
    from feast import FeatureView

WINDOWS = (7, 28, 90)
HALF_LIVES = (14, 45, 120)
FINER = 2.0**20  # a weighted amount is counted in these parts of a ten-thousandth


def columns(seen: ir.Table) -> dict[str, ir.Value]:
    """What a customer spends, in the shop's currency, over the days seen from a moment."""
    named = {feature.__name__: feature(seen) for feature in FEATURES}
    within = {f"spend_{w}d": spend_aged(seen, 0, w) for w in WINDOWS}
    before = {f"spend_{w}d_before": spend_aged(seen, w, 2 * w) for w in WINDOWS}
    trend = {f"spend_trend_{w}d": spend_trend(seen, w) for w in WINDOWS[1:]}
    fading = {f"spend_decayed_{h}d": spend_decayed(seen, h) for h in HALF_LIVES}
    return named | within | before | trend | fading


def spend_total(seen: ir.Table) -> ir.Value:
    """All they ever paid, less what they brought back."""
    return seen.spend.sum() / MONEY


def spend_day_mean(seen: ir.Table) -> ir.Value:
    """Net spend for each purchase day."""
    return engine.ratio(spend_total(seen), seen.visit.sum())


def spend_day_max(seen: ir.Table) -> ir.Value:
    """Their biggest day."""
    return seen.spend.max() / MONEY


def spend_day_last(seen: ir.Table) -> ir.Value:
    """Net spend of the last purchase day."""
    return _last(seen, seen.spend) / MONEY


def spend_last_ratio(seen: ir.Table) -> ir.Value:
    """The last purchase day against the mean one."""
    return engine.ratio(spend_day_last(seen), spend_day_mean(seen))


def baskets_total(seen: ir.Table) -> ir.Value:
    """How many baskets they took to the till."""
    return seen.baskets.sum()


def basket_value_mean(seen: ir.Table) -> ir.Value:
    """Mean value of a basket, returns aside."""
    return engine.ratio(seen.sales.sum() / MONEY, baskets_total(seen))


def basket_value_std(seen: ir.Table) -> ir.Value:
    """Spread of the value of a basket; NULL with fewer than two."""
    spread = engine.ratio(seen.squares.sum() / MONEY**2, baskets_total(seen)) - basket_value_mean(seen) ** 2
    return ibis.cases((baskets_total(seen) >= 2, ibis.greatest(spread, 0.0).sqrt()))


def basket_value_last(seen: ir.Table) -> ir.Value:
    """Mean value of the baskets of the last purchase day."""
    return engine.ratio(_last(seen, seen.sales) / MONEY, _last(seen, seen.baskets))


def basket_lines_mean(seen: ir.Table) -> ir.Value:
    """Lines on a receipt."""
    return engine.ratio(seen.lines.sum(), baskets_total(seen))


def basket_lines_last(seen: ir.Table) -> ir.Value:
    """Lines on a receipt of the last purchase day."""
    return engine.ratio(_last(seen, seen.lines), _last(seen, seen.baskets))


def basket_pieces_mean(seen: ir.Table) -> ir.Value:
    """Quantity in a basket, whatever its unit."""
    return engine.ratio(seen.pieces.sum() / MONEY, baskets_total(seen))


def baskets_per_day(seen: ir.Table) -> ir.Value:
    """Baskets on one purchase day."""
    return engine.ratio(baskets_total(seen), seen.visit.sum())


def discount_share(seen: ir.Table) -> ir.Value:
    """What discounts took off the full price."""
    return engine.ratio(seen.saved.sum(), seen.sales.sum() + seen.saved.sum())


def discount_share_90d(seen: ir.Table) -> ir.Value:
    """The same, of the last 90 days."""
    recent = rhythm.aged(seen, 0, 90)
    saved = seen.saved.sum(where=recent)
    return engine.ratio(saved, seen.sales.sum(where=recent) + saved)


def return_share(seen: ir.Table) -> ir.Value:
    """What was brought back, of what was bought."""
    return engine.ratio(seen.returned.sum(), seen.sales.sum())


def return_days(seen: ir.Table) -> ir.Value:
    """Days on which something was brought back."""
    return (seen.returned > 0).sum()


def spend_aged(seen: ir.Table, after: int, until: int) -> ir.Value:
    """Net spend more than `after` and at most `until` days back; 0 where there was none."""
    return engine.total(seen.spend, rhythm.aged(seen, after, until)) / MONEY


def spend_trend(seen: ir.Table, days: int) -> ir.Value:
    """The last window's share of it and the one before: 0.5 is steady; NULL if nothing was spent in both."""
    late, early = spend_aged(seen, 0, days), spend_aged(seen, days, 2 * days)
    return engine.ratio(late, late + early)


def spend_decayed(seen: ir.Table, half_life_days: int) -> ir.Value:
    """Net spend, each day's counted half for every half_life_days it lies back."""
    weight = ibis.literal(0.5) ** (seen.age_days / half_life_days)
    return engine.whole(weight * seen.spend, FINER).sum() / (FINER * MONEY)


def _last(seen: ir.Table, what: ir.Column) -> ir.Scalar:
    return what.argmax(seen.visit_day)


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
    """What Feast is told about this family; the numbers lie in folder/spend/part.parquet."""
    from features import views

    return views.of_numbers("spend", folder, columns(lines.SEEN))
