"""Reports: what a command tells a person on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from customers.reports import exports
from customers.shop.settings import Shop

#: The figures that a person compares first, in this order.
TASK_METRICS = {
    "recommender": ("ndcg_10", "recall_10", "new_hit_rate_10", "distinct_lists", "coverage"),
    "churn": ("auc", "ap", "log_loss", "ece"),
    "timing": ("crps", "crps_levelled", "c_index", "nll", "coverage_80"),
    "offers": ("ndcg_10", "map", "auc"),
    "restock": ("auc", "ap", "log_loss", "ece"),
    "value": ("ngini", "mae", "decile_error", "bias"),
}


#: The columns of a backtest on a terminal: figure and its heading.
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

#: What is measured but says little about this question.
HIDDEN_METRICS = {"churn": ("bias",), "restock": ("bias", "brier")}


#: The figures of uplift on a terminal, with their words.
UPLIFT_HEADINGS = {
    "plain_difference": "contacted less others, as they are",
    "average": "what contact adds",
    "x.first": "to the third foretold to gain most",
    "x.rest": "to the others",
    "x.qini": "Qini coefficient",
    "telling": "contact foretold, AUC",
    "outside": "share with nobody alike",
}


def format_backtest(summary: Mapping[str, Any]) -> str:
    """A backtest in words: every method with 95 % intervals, then the model's minus theirs, then its segments."""
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
    """What each model needs, a line each, and what stands in for it where there is too little."""
    return _format_columns(("", "needed", "known", "", ""), (
        (requirement["model"], requirement["needed"], f"{requirement['found']:,}", "" if requirement["enough"] else f"{requirement['instead']} instead",
         requirement["what"]) for requirement in requirements
    ))  # fmt: skip


def format_uplift(summary: Mapping[str, Any]) -> str:
    """Whether contact brings customers back: the verdict, then every outcome after the mailings and before them."""
    parts = [
        f"{summary['verdict']}: {summary['why']}",
        f"{len(summary['mailings'])} mailings: {', '.join(summary['mailings'])}",
    ]
    for name, about in summary["outcomes"].items():
        rows = [(words, about["figures"], about["placebo"] or {}, metric) for metric, words in UPLIFT_HEADINGS.items()]
        table = _format_columns((f"{name} ({about['unit']})", "after contact", "in the days before"), (
            (words, _format_interval(after.get(metric)), _format_interval(before.get(metric)))
            for words, after, before, metric in rows
        ))  # fmt: skip
        counted = f"{about['contacted']:,} contacted and {about['others']:,} others, compared with customers like them"
        parts += [f"{name}: {about['verdict']}\n{counted}\n{table}"]
    return "\n\n".join([*parts, "\n".join(f"  {path}" for path in summary["files"])])


def format_nightly(summary: Mapping[str, Any]) -> str:
    """The night in words: who was scored, and every model beside its baselines on days that neither had seen."""
    head = f"As of {summary['as_of']}: {summary['customers']:,} customers, {summary['scores_written']:,} scores written"
    parts = [head, *(_format_model(name, model) for name, model in summary["models"].items())]
    seconds = "  ".join(f"{step} {duration:.0f} s" for step, duration in summary["seconds"].items())
    return "\n\n".join([*parts, seconds])


def format_models(champions: Sequence[Mapping[str, Any]]) -> str:
    """Champions, a line each."""
    if not champions:
        return "No model has been trained yet; run: regulars run"
    return _format_columns(("model", "version", "learner", "since", "why"), (
        (row["name"], str(row["version"]), row["learner"], row["since"] or "", row["why"]) for row in champions
    ))  # fmt: skip


def format_recommendations(recommendations: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Lists of products, best first."""
    return "\n\n".join(_format_product_list(name, items) for name, items in recommendations.items())


def format_offers(offers_by_customer: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Offers, likeliest to be redeemed first."""
    return "\n\n".join(_format_offer_list(name, items) for name, items in offers_by_customer.items())


def format_at_risk(rows: Sequence[Mapping[str, Any]]) -> str:
    """The list a retention team works through."""
    if not rows:
        return "Nobody is at risk, or no night has run yet; run: regulars run"
    amounts = {"at risk": "value_at_risk"}
    if any(row["saved_value"] is not None for row in rows):
        amounts["saved"] = "saved_value"
    return _format_columns(("customer", "p(gone)", "band", *amounts, "by", "offer", "why"), (
        (row["customer_id"], f"{row['churn_probability']:.2f}", row["churn_band"],
         *(_format_amount(row[name]) for name in amounts.values()), ", ".join(row["contactable"]) or "-",
         row["suggested_offer_id"] or "-", "; ".join(row["reasons"] or []))
        for row in rows
    ))  # fmt: skip


def format_home_check(result: Mapping[str, Any]) -> str:
    """What a look at the home found, one line each."""
    return "\n".join(
        f"{'ok ' if check['ok'] else '-- '} {check['what']}: {check['found']}" for check in result["checks"]
    )


def format_demo(shop: Shop, key_path: Path, port: int) -> str:
    """What to look at next: three customers whose answers differ, and how to ask for them."""
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
        f"  {curl_command}/customers/{customer_ids[0]}/recommendations", f"  {curl_command}/customers/{customer_ids[1]}/next-purchase",
        f"  {curl_command}/customers/{customer_ids[1]}/offers", f"  {curl_command}/at-risk?limit=5", "  .venv/bin/regulars mlflow",
        f"  the retention desk: http://localhost:{port}/ (sign in with the key in {key_path})",
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
    """A figure in three digits, with its interval where it has one."""
    if value is None or value["value"] is None:
        return "-"
    whole, low, high = value["value"], value["low"], value["high"]
    return f"{whole:.3g}" if low is None or high is None else f"{whole:.3g} [{low:.3g}, {high:.3g}]"


def _format_product_list(name: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return f"{name}: nothing to recommend; the customer is unknown, or no night has run yet"
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
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    return "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in cells)  # fmt: skip
