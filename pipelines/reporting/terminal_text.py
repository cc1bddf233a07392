"""Results of commands as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from customers.reports import exports
from customers.shop.settings import Shop

#: The metrics of a nightly run that are shown for each task, in this order.
TASK_METRICS = {
    "recommender": ("ndcg_10", "recall_10", "new_hit_rate_10", "distinct_lists", "coverage"),
    "churn": ("auc", "ap", "log_loss", "ece"),
    "timing": ("crps", "crps_levelled", "c_index", "nll", "coverage_80"),
    "offers": ("ndcg_10", "map", "auc"),
    "restock": ("auc", "ap", "log_loss", "ece"),
    "value": ("ngini", "mae", "decile_error", "bias"),
}

#: The columns of a backtest: metric and heading.
METRIC_HEADINGS = {
    "recall_10": "recall@10",
    "ndcg_10": "ndcg@10",
    "new_hit_rate_10": "new hit@10",
    "trip_recall_10": "trip recall@10",
    "distinct_lists": "distinct",
    "coverage": "coverage",
    "map": "map",
    "auc": "auc",
    "ap": "ap",
    "brier": "brier",
    "log_loss": "log loss",
    "ece": "ece",
    "crps": "crps",
    "crps_levelled": "crps levelled",
    "c_index": "c",
    "nll": "nll",
    "coverage_80": "in 80 %",
    "ngini": "norm. gini",
    "mae": "mae",
    "decile_error": "decile error",
    "bias": "bias",
}

#: Metrics that are measured but not shown, since they say little about the task.
HIDDEN_METRICS = {"churn": ("bias",), "restock": ("bias", "brier")}

#: The metrics of an uplift analysis and their labels.
UPLIFT_HEADINGS = {
    "plain_difference": "contacted minus others, unadjusted",
    "average": "average effect of contact",
    "x.first": "effect on the third with the highest predicted effect",
    "x.rest": "effect on the others",
    "x.qini": "Qini coefficient",
    "telling": "AUC of predicting who was contacted",
    "outside": "share without a comparable customer",
}


def format_backtest(summary: Mapping[str, Any]) -> str:
    """A backtest as text: every method with 95 % intervals, the model minus each of the others, then its segments."""
    table = pd.DataFrame(summary["table"])
    everyone = table[table["segment"] == "all"]
    metrics = [name for name in METRIC_HEADINGS if (everyone["figure"] == name).any()]
    metrics = [name for name in metrics if name not in HIDDEN_METRICS.get(summary["name"], ())]
    head = f"{summary['name']} as of {', '.join(summary['cutoffs'])} ({summary['seconds']:.0f} s)"
    values = _format_methods(everyone, metrics, ("value", "low", "high"))
    ahead = _format_methods(everyone.dropna(subset=["ahead"]), metrics, ("ahead", "ahead_low", "ahead_high"))
    segment_rows = table[(table["method"] == summary["model"]) & (table["segment"] != "all")]
    segments = _format_methods(segment_rows.assign(method=segment_rows["segment"]), metrics, ("value", "low", "high"))
    by_segment = [f"{summary['model']} by segment", segments] if len(segment_rows) else []
    files = "\n".join(f"  {path}" for path in summary["files"])
    parts = [head, values, f"{summary['model']} minus each of the others", ahead, *by_segment]
    return "\n\n".join([*parts, *summary["notes"], files])


def format_sufficiency(requirements: Sequence[Mapping[str, Any]]) -> str:
    """What each model needs, one line per requirement, and what is served instead where there is too little."""
    return _format_columns(("", "needed", "present", "", ""), (
        (requirement["model"], requirement["needed"], f"{requirement['found']:,}",
         "" if requirement["enough"] else f"{requirement['instead']} instead", requirement["what"])
        for requirement in requirements
    ))  # fmt: skip


def format_uplift(summary: Mapping[str, Any]) -> str:
    """An uplift analysis as text: the verdict, then every outcome after the mailings and in the days before them."""
    parts = [
        f"{summary['verdict']}: {summary['why']}",
        f"{len(summary['mailings'])} mailings: {', '.join(summary['mailings'])}",
    ]
    for name, outcome in summary["outcomes"].items():
        after, before = outcome["figures"], outcome["placebo"] or {}
        table = _format_columns((f"{name} ({outcome['unit']})", "after contact", "in the days before"), (
            (label, _format_interval(after.get(metric)), _format_interval(before.get(metric)))
            for metric, label in UPLIFT_HEADINGS.items()
        ))  # fmt: skip
        counts = f"{outcome['contacted']:,} contacted and {outcome['others']:,} others, compared with similar customers"
        parts += [f"{name}: {outcome['verdict']}\n{counts}\n{table}"]
    return "\n\n".join([*parts, "\n".join(f"  {path}" for path in summary["files"])])


def format_nightly(summary: Mapping[str, Any]) -> str:
    """A nightly run as text: counts, and the hold-out metrics of every model beside its baselines."""
    head = f"As of {summary['as_of']}: {summary['customers']:,} customers, {summary['scores_written']:,} scores written"
    parts = [head, *(_format_model(name, model) for name, model in summary["models"].items())]
    seconds = "  ".join(f"{step} {duration:.0f} s" for step, duration in summary["seconds"].items())
    return "\n\n".join([*parts, seconds])


def format_models(champions: Sequence[Mapping[str, Any]]) -> str:
    """Champions, one line each."""
    if not champions:
        return "No model has been trained yet; run: regulars run"
    return _format_columns(("model", "version", "learner", "since", "why"), (
        (row["name"], str(row["version"]), row["learner"], row["since"] or "", _format_why(row)) for row in champions
    ))  # fmt: skip


def _format_why(champion: Mapping[str, Any]) -> str:
    """Why a version is the champion, and why servers refuse it where they do."""
    why, refused = str(champion["why"]), champion.get("refused")
    return f"{why}; servers refuse it and serve the one before: {refused}" if refused else why


def format_recommendations(recommendations: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The recommended products of each customer, best first."""
    return "\n\n".join(_format_product_list(name, items) for name, items in recommendations.items())


def format_offers(offers_by_customer: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The offers of each customer, most likely to be redeemed first."""
    return "\n\n".join(_format_offer_list(name, items) for name, items in offers_by_customer.items())


def format_at_risk(rows: Sequence[Mapping[str, Any]]) -> str:
    """Customers at risk, one line each, in the given order."""
    if not rows:
        return "No customer is at risk, or there has been no nightly run yet; run: regulars run"
    amounts = {"at risk": "value_at_risk"}
    if any(row["saved_value"] is not None for row in rows):
        amounts["saved"] = "saved_value"
    return _format_columns(("customer", "p(churn)", "band", *amounts, "by", "offer", "why"), (
        (row["customer_id"], f"{row['churn_probability']:.2f}", row["churn_band"],
         *(_format_amount(row[name]) for name in amounts.values()), ", ".join(row["contactable"]) or "-",
         row["suggested_offer_id"] or "-", "; ".join(row["reasons"] or []))
        for row in rows
    ))  # fmt: skip


def format_home_check(result: Mapping[str, Any]) -> str:
    """The checks of a home, one line each."""
    return "\n".join(
        f"{'ok ' if check['ok'] else '-- '} {check['what']}: {check['found']}" for check in result["checks"]
    )


def format_demo(shop: Shop, key_path: Path, port: int) -> str:
    """What to look at after the demo: three customers with different predictions, and commands to try."""
    scores = exports.build_table(shop, "scores").dropna(subset=["churn_probability"])
    customer_ids = [
        scores.iloc[(scores["churn_probability"] - probability).abs().argmin()]["customer_id"]
        for probability in (0.02, 0.5, 0.9)
    ]
    lines = [_format_customer(row) for _, row in scores[scores["customer_id"].isin(customer_ids)].iterrows()]
    curl_command = f'curl -H "Authorization: Bearer $(cat {key_path})" http://localhost:{port}/v1'
    return "\n".join([
        "Three customers:", *lines, "",
        "Try:", f"  .venv/bin/regulars recommend {' '.join(customer_ids)}", "  .venv/bin/regulars at-risk -n 10",
        f"  {curl_command}/customers/{customer_ids[0]}/recommendations",
        f"  {curl_command}/customers/{customer_ids[1]}/next-purchase",
        f"  {curl_command}/customers/{customer_ids[1]}/offers", f"  {curl_command}/at-risk?limit=5",
        "  .venv/bin/regulars mlflow",
        f"  the retention console: http://localhost:{port}/ (sign in with the key in {key_path})",
    ])  # fmt: skip


def _format_customer(row: pd.Series) -> str:
    days = row["next_purchase_days_p50"]
    back = "not within the curve" if pd.isna(days) else f"back in about {days:.0f} days"
    return (
        f"  {row['customer_id']}: {back}; no purchase in {row['churn_horizon_days']:.0f} days has probability "
        f"{row['churn_probability']:.2f} ({row['churn_band']})"
    )


def _format_model(name: str, model: Mapping[str, Any]) -> str:
    title = f"{name} version {model['version']} ({'promoted' if model['promoted'] else 'not promoted'}): {model['why']}"
    rows = {model["learner"]: model["metrics"], **model["baselines"]}
    metrics = [metric for metric in TASK_METRICS.get(name, ()) if any(metric in row for row in rows.values())]
    if not metrics:
        return title
    body = _format_columns(("", *metrics), (
        (learner, *(_format_metric(row.get(metric)) for metric in metrics)) for learner, row in rows.items() if row
    ))  # fmt: skip
    return f"{title}\n{body}"


def _format_amount(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _format_metric(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _format_interval(value: Mapping[str, float | None] | None) -> str:
    """A metric in three digits, with its interval where it has one."""
    if value is None or value["value"] is None:
        return "-"
    estimate, low, high = value["value"], value["low"], value["high"]
    return f"{estimate:.3g}" if low is None or high is None else f"{estimate:.3g} [{low:.3g}, {high:.3g}]"


def _format_product_list(name: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return f"{name}: nothing to recommend; the customer is unknown, or there has been no nightly run yet"
    return f"{name}\n" + _format_columns(("", "product", "", "p", "why"), (
        (str(item["rank"]), item["product_id"], item["name"], f"{item['score']:.3f}", item["reason"]) for item in items
    ))  # fmt: skip


def _format_offer_list(name: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return f"{name}: no offer for this customer now; POST /v1/offers says why"
    return f"{name}\n" + _format_columns(("", "offer", "p", "until", "why"), (
        (str(item["rank"]), item["offer_id"], f"{item['score']:.3f}", f"{item['expires_at']:%Y-%m-%d}", item["reason"])
        for item in items
    ))  # fmt: skip


def _format_methods(table: pd.DataFrame, metrics: Sequence[str], columns: tuple[str, str, str]) -> str:
    cells = {
        (row["method"], row["figure"]): _format_range(*(row[name] for name in columns))
        for row in table.to_dict("records")
    }
    present = [name for name in metrics if any(metric == name for _, metric in cells)]
    return _format_columns(("", *(METRIC_HEADINGS[name] for name in present)), (
        (method, *(cells.get((method, name), "-") for name in present)) for method in table["method"].unique()
    ))  # fmt: skip


def _format_range(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or pd.isna(value):
        return "-"
    return f"{value:.4f}" if low is None or pd.isna(low) else f"{value:.4f} ({low:.4f} to {high:.4f})"


def _format_columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in cells)  # fmt: skip
