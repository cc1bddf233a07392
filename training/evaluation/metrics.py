"""Metrics of probabilities, survival curves, amounts and offers, each one number over the customers of a hold-out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from training.evaluation import ranking_metrics

Floats = NDArray[np.float64]


# Probabilities


def probability_metrics(happened: Floats, p: Floats) -> dict[str, float]:
    """Ranking and calibration metrics of probabilities p (n,) against outcomes happened (n,), 0 or 1."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    has_both_classes = 0 < happened.sum() < happened.size
    return {
        "auc": float(roc_auc_score(happened, p)) if has_both_classes else float("nan"),
        "ap": float(average_precision_score(happened, p)) if has_both_classes else float("nan"),
        "brier": float(np.mean((p - happened) ** 2)),
        "log_loss": float(-np.mean(happened * np.log(p) + (1 - happened) * np.log1p(-p))),
        "ece": calibration_error(happened, p),
        "lift_10": lift(happened, p),
        "bias": float(np.mean(p) - np.mean(happened)),
    }


def calibration_error(happened: Floats, p: Floats, bins: int = 10) -> float:
    """Expected calibration error: mean gap between mean p and outcome rate over bins of equally many customers.

    happened, p: (n,).
    """
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = [part.size * abs(float(np.mean(p[part]) - np.mean(happened[part]))) for part in parts]
    return sum(gaps) / max(happened.size, 1)


def lift(happened: Floats, p: Floats, share: float = 0.1) -> float:
    """Outcome rate among the `share` of customers with the highest p, over the rate among all; happened, p: (n,)."""
    top = np.argsort(-p, kind="stable")[: max(1, round(share * p.size))]
    rate = float(np.mean(happened))
    return float(np.mean(happened[top])) / rate if rate else float("nan")


# Times to the next purchase


def survival_metrics(
    duration_days: Floats, observed: NDArray[np.bool_], survival: Floats, follow_up_days: int, *, level_day: int = 28
) -> dict[str, float]:
    """Metrics of survival curves against times to the next purchase, all observed for the same follow_up_days.

    duration_days (n,): days to the next purchase, at most follow_up_days. observed (n,). survival (n, n_days), n_days
    >= follow_up_days: P(T > d) for d = 1 to n_days. With one censoring time for all, the Brier score needs no weights,
    and its integral is the CRPS restricted to [0, follow_up_days] (Graf 1999). `crps_levelled` is the CRPS after all
    curves are raised to one common power, so that their mean at level_day equals the share without a purchase by then:
    what is left measures how well customers are ranked.
    """
    curve = np.clip(survival[:, :follow_up_days], 1e-9, 1.0)
    days = np.arange(1, follow_up_days + 1)
    is_observed = observed & (duration_days <= follow_up_days)
    event_days = np.where(is_observed, duration_days, np.inf)
    is_event_free = event_days[:, None] > days
    return {
        "crps": _crps(curve, is_event_free),
        "crps_levelled": _crps(_recalibrated(curve, is_event_free, min(level_day, follow_up_days) - 1), is_event_free),
        "nll": _negative_log_likelihood(curve, event_days),
        "c_index": concordance(np.minimum(event_days, follow_up_days + 1.0), is_observed, curve.sum(axis=1)),
        "coverage_80": _coverage(curve, event_days),
    }


def _crps(curve: Floats, is_event_free: NDArray[np.bool_]) -> float:
    return float(np.mean(np.sum((curve - is_event_free) ** 2, axis=1)))


def _recalibrated(curve: Floats, is_event_free: NDArray[np.bool_], day_index: int) -> Floats:
    """Curves to the power that makes their mean at day_index equal the event-free share; log power within [-3, 3]."""
    logs, event_free_share = np.log(curve), float(is_event_free[:, day_index].mean())
    low, high = -3.0, 3.0
    for _ in range(40):
        middle = (low + high) / 2
        too_many = np.exp(np.exp(middle) * logs[:, day_index]).mean() > event_free_share
        low, high = (middle, high) if too_many else (low, middle)
    return np.asarray(np.exp(np.exp((low + high) / 2) * logs))


def _negative_log_likelihood(curve: Floats, event_days: Floats) -> float:
    padded = np.column_stack([np.ones(len(curve)), curve])
    rows, event = np.arange(len(curve)), np.isfinite(event_days)
    day = np.where(event, event_days, curve.shape[1]).astype(int)
    mass = np.where(event, padded[rows, day - 1] - padded[rows, day], padded[rows, day])
    return float(-np.mean(np.log(np.maximum(mass, 1e-9))))


def _coverage(curve: Floats, event_days: Floats, level: float = 0.8) -> float:
    """Share of customers inside the central interval, each counted by the share of their day's mass inside it.

    Days are discrete, so an interval of whole days covers too much; the share of the mass of the observed day is the
    expectation of the randomised probability integral transform (Czado 2009).
    """
    low, high = (1 - level) / 2, (1 + level) / 2
    cdf = 1 - np.column_stack([np.ones(len(curve)), curve])
    rows, event = np.arange(len(curve)), np.isfinite(event_days)
    day = np.where(event, event_days, curve.shape[1] + 1).astype(int)
    start = cdf[rows, day - 1]
    end = np.where(event, cdf[rows, np.minimum(day, curve.shape[1])], 1.0)
    mass = np.maximum(end - start, 1e-12)
    return float(np.mean(np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None) / mass))


def concordance(durations: Floats, observed: NDArray[np.bool_], expected_durations: Floats) -> float:
    """Harrell's C: of the pairs whose order is known, the share that expected durations rank in that order.

    durations, observed, expected_durations: (n,).
    """
    order = np.lexsort((~observed, durations))
    durations, observed, expected_durations = durations[order], observed[order], expected_durations[order]
    concordant = pairs = 0.0
    for position in np.flatnonzero(observed):
        later = slice(position + 1, None)
        usable = (durations[later] > durations[position]) | ~observed[later]
        gap = expected_durations[later][usable] - expected_durations[position]
        concordant += np.count_nonzero(gap > 0) + 0.5 * np.count_nonzero(gap == 0)
        pairs += gap.size
    return concordant / pairs if pairs else float("nan")


# Amounts


def value_metrics(spent: Floats, expected: Floats) -> dict[str, float]:
    """Ranking and calibration metrics of expected amounts (n,) against amounts spent (n,).

    The mean absolute error alone would favour the median, which is too low wherever many spend nothing: read it
    together with the bias of the total and the decile error.
    """
    total = float(np.sum(spent))
    return {
        "ngini": normalised_gini(spent, expected),
        "decile_error": decile_error(spent, expected),
        "mae": float(np.mean(np.abs(expected - spent))) if spent.size else float("nan"),
        "bias": float(np.sum(expected)) / total - 1 if total > 0 else float("nan"),
    }


def normalised_gini(spent: Floats, expected: Floats) -> float:
    """Gini area of the expected order over a random one, as a share of that of the true order.

    spent, expected: (n,). Customers with equal expectations share their rank (Wang, Liu and Miao 2019).
    """
    best = _gini(spent, spent)
    return _gini(spent, expected) / best if best > 0 else float("nan")


def _gini(spent: Floats, order_by: Floats) -> float:
    total = float(np.sum(spent))
    if total <= 0:
        return 0.0
    _, places, counts = np.unique(-order_by, return_inverse=True, return_counts=True)
    shares = np.concatenate([[0.0], np.cumsum(np.bincount(places, weights=spent)) / total])
    customers = np.concatenate([[0.0], np.cumsum(counts) / spent.size])
    return float(np.sum(np.diff(customers) * (shares[1:] + shares[:-1]))) - 1


def decile_error(spent: Floats, expected: Floats, bins: int = 10) -> float:
    """Mean relative gap between expected and spent over tenths of customers in order of the expectation.

    spent, expected: (n,). A tenth that spends next to nothing is divided by 2 % of the overall mean, so that it does
    not decide alone.
    """
    order = np.argsort(expected, kind="stable")
    min_denominator = max(0.02 * float(np.mean(spent)), 1e-9) if spent.size else 1.0
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = []
    for part in parts:
        mean_expected, mean_spent = float(np.mean(expected[part])), float(np.mean(spent[part]))
        gaps.append(abs(mean_expected - mean_spent) / max(mean_spent, min_denominator))
    return float(np.mean(gaps)) if gaps else float("nan")


# Offers


def group_metrics(group: NDArray[np.int64], redeemed: Floats, p: Floats, *, at: int = 10) -> dict[str, float]:
    """Ranking of offers within groups (customer and campaign): means over groups with a redemption.

    group, redeemed (0 or 1), p: (n,). AUC and AP are over all entries, whatever their group.
    """
    per_group = ranking_metrics.metrics_per_group(group, redeemed, p, at=at)
    if per_group.empty:
        return dict.fromkeys(("map", f"ndcg_{at}", "auc", "ap"), float("nan")) | {"groups": 0.0}
    return {str(name): float(mean) for name, mean in per_group.mean().items()} | {
        "auc": float(roc_auc_score(redeemed, p)) if redeemed.min() < 1 else float("nan"),
        "ap": float(average_precision_score(redeemed, p)),
        "groups": float(len(per_group)),
    }


def comparator(metric: str) -> Callable[[float, float], bool]:
    """Whether the first value of a metric is better than the second; errors and losses are better when smaller."""
    smaller = metric in {"log_loss", "brier", "ece", "crps", "crps_levelled", "nll", "mae", "decile_error"}
    return (lambda a, b: a < b) if smaller else (lambda a, b: a > b)
