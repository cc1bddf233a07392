"""Reports: what a command tells a person on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from customers import tables
from customers.shop import Shop

#: The figures that a person compares first, in this order.
FIGURES = {
    "recommender": ("ndcg_10", "recall_10", "new_hit_rate_10", "distinct_lists", "coverage"),
    "churn": ("auc", "ap", "log_loss", "ece"),
    "timing": ("crps", "crps_levelled", "c_index", "nll", "coverage_80"),
    "offers": ("ndcg_10", "map", "auc"),
    "restock": ("auc", "ap", "log_loss", "ece"),
    "value": ("ngini", "mae", "decile_error", "bias"),
}


#: The columns of a backtest on a terminal: figure and its heading.
HEADINGS = {
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
LEFT_OUT = {"churn": ("bias",), "restock": ("bias", "brier")}


#: The figures of uplift on a terminal, with their words.
UPLIFT = {
    "plain_difference": "contacted less others, as they are",
    "average": "what contact adds",
    "x.first": "to the third foretold to gain most",
    "x.rest": "to the others",
    "x.qini": "Qini coefficient",
    "telling": "contact foretold, AUC",
    "outside": "share with nobody alike",
}


def of_backtest(told: Mapping[str, Any]) -> str:
    """A backtest in words: every method with 95 % intervals, then the model's minus theirs, then its segments."""
    table = pd.DataFrame(told["table"])
    everyone = table[table["segment"] == "all"]
    shown = [name for name in HEADINGS if (everyone["figure"] == name).any()]
    shown = [name for name in shown if name not in LEFT_OUT.get(told["name"], ())]
    head = f"{told['name']} as of {', '.join(told['cutoffs'])} ({told['seconds']:.0f} s)"
    values = _methods(everyone, shown, ("value", "low", "high"))
    ahead = _methods(everyone.dropna(subset=["ahead"]), shown, ("ahead", "ahead_low", "ahead_high"))
    mine = table[(table["method"] == told["model"]) & (table["segment"] != "all")]
    segments = _methods(mine.assign(method=mine["segment"]), shown, ("value", "low", "high"))
    by_segment = [f"{told['model']} by segment", segments] if len(mine) else []
    files = "\n".join(f"  {path}" for path in told["files"])
    parts = [head, values, f"{told['model']} minus each of the others", ahead, *by_segment]
    return "\n\n".join([*parts, *told["notes"], files])


def of_sufficiency(told: Sequence[Mapping[str, Any]]) -> str:
    """What each model needs, a line each, and what stands in for it where there is too little."""
    return _columns(("", "needed", "known", "", ""), (
        (need["model"], need["needed"], f"{need['found']:,}", "" if need["enough"] else f"{need['instead']} instead",
         need["what"]) for need in told
    ))  # fmt: skip


def of_uplift(told: Mapping[str, Any]) -> str:
    """Whether contact brings customers back: the verdict, then every outcome after the mailings and before them."""
    parts = [f"{told['verdict']}: {told['why']}", f"{len(told['mailings'])} mailings: {', '.join(told['mailings'])}"]
    for name, about in told["outcomes"].items():
        rows = [(words, about["figures"], about["placebo"] or {}, figure) for figure, words in UPLIFT.items()]
        table = _columns((f"{name} ({about['unit']})", "after contact", "in the days before"), (
            (words, _with_interval(after.get(figure)), _with_interval(before.get(figure)))
            for words, after, before, figure in rows
        ))  # fmt: skip
        counted = f"{about['contacted']:,} contacted and {about['others']:,} others, compared with customers like them"
        parts += [f"{name}: {about['verdict']}\n{counted}\n{table}"]
    return "\n\n".join([*parts, "\n".join(f"  {path}" for path in told["files"])])


def of_night(told: Mapping[str, Any]) -> str:
    """The night in words: who was scored, and every model beside its baselines on days that neither had seen."""
    head = f"As of {told['as_of']}: {told['customers']:,} customers, {told['scores_written']:,} scores written"
    parts = [head, *(_of_model(name, model) for name, model in told["models"].items())]
    seconds = "  ".join(f"{step} {spent:.0f} s" for step, spent in told["seconds"].items())
    return "\n\n".join([*parts, seconds])


def of_models(told: Sequence[Mapping[str, Any]]) -> str:
    """Champions, a line each."""
    if not told:
        return "No model has been trained yet; run: regulars run"
    return _columns(("model", "version", "learner", "since", "why"), (
        (row["name"], str(row["version"]), row["learner"], row["since"] or "", row["why"]) for row in told
    ))  # fmt: skip


def of_recommendations(told: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Lists of products, best first."""
    return "\n\n".join(_of_list(name, items) for name, items in told.items())


def of_offers(told: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Offers, likeliest to be redeemed first."""
    return "\n\n".join(_of_offers(name, items) for name, items in told.items())


def of_at_risk(told: Sequence[Mapping[str, Any]]) -> str:
    """The list a retention team works through."""
    if not told:
        return "Nobody is at risk, or no night has run yet; run: regulars run"
    amounts = {"at risk": "value_at_risk"}
    if any(row["saved_value"] is not None for row in told):
        amounts["saved"] = "saved_value"
    return _columns(("customer", "p(gone)", "band", *amounts, "by", "offer", "why"), (
        (row["customer_id"], f"{row['churn_probability']:.2f}", row["churn_band"],
         *(_money(row[name]) for name in amounts.values()), ", ".join(row["contactable"]) or "-",
         row["suggested_offer_id"] or "-", "; ".join(row["reasons"] or []))
        for row in told
    ))  # fmt: skip


def of_doctor(found: Mapping[str, Any]) -> str:
    """What a look at the home found, one line each."""
    return "\n".join(
        f"{'ok ' if check['ok'] else '-- '} {check['what']}: {check['found']}" for check in found["checks"]
    )


def of_demo(shop: Shop, key: Path, port: int) -> str:
    """What to look at next: three customers whose answers differ, and how to ask for them."""
    scores = tables.table(shop, "scores").dropna(subset=["churn_probability"])
    someone = [scores.iloc[(scores["churn_probability"] - p).abs().argmin()]["customer_id"] for p in (0.02, 0.5, 0.9)]
    lines = [_of_customer(row) for _, row in scores[scores["customer_id"].isin(someone)].iterrows()]
    ask = f'curl -H "Authorization: Bearer $(cat {key})" http://localhost:{port}/v1'
    return "\n".join([
        "Three customers:", *lines, "",
        "Try:", f"  .venv/bin/regulars recommend {' '.join(someone)}", "  .venv/bin/regulars at-risk -n 10",
        f"  {ask}/customers/{someone[0]}/recommendations", f"  {ask}/customers/{someone[1]}/next-purchase",
        f"  {ask}/customers/{someone[1]}/offers", f"  {ask}/at-risk?limit=5", "  .venv/bin/regulars mlflow",
        f"  the retention desk: http://localhost:{port}/ (sign in with the key in {key})",
    ])  # fmt: skip


def _of_customer(row: pd.Series) -> str:
    days = row["next_purchase_days_p50"]
    back = "not within the curve" if pd.isna(days) else f"back in about {days:.0f} days"
    return (
        f"  {row['customer_id']}: {back}; no purchase in {row['churn_horizon_days']:.0f} days has probability "
        f"{row['churn_probability']:.2f} ({row['churn_band']})"
    )


def _of_model(name: str, model: Mapping[str, Any]) -> str:
    title = f"{name} version {model['version']} ({'promoted' if model['promoted'] else 'not promoted'}): {model['why']}"
    rows = {model["learner"]: model["metrics"], **model["baselines"]}
    shown = [figure for figure in FIGURES.get(name, ()) if any(figure in row for row in rows.values())]
    if not shown:
        return title
    body = _columns(("", *shown), (
        (learner, *(_figure(row.get(figure)) for figure in shown)) for learner, row in rows.items() if row
    ))  # fmt: skip
    return f"{title}\n{body}"


def _money(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _with_interval(value: Mapping[str, float | None] | None) -> str:
    """A figure in three digits, with its interval where it has one."""
    if value is None or value["value"] is None:
        return "-"
    whole, low, high = value["value"], value["low"], value["high"]
    return f"{whole:.3g}" if low is None or high is None else f"{whole:.3g} [{low:.3g}, {high:.3g}]"


def _of_list(name: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return f"{name}: nothing to recommend; the customer is unknown, or no night has run yet"
    return f"{name}\n" + _columns(("", "product", "", "p", "why"), (
        (str(item["rank"]), item["product_id"], item["name"], f"{item['score']:.3f}", item["reason"]) for item in items
    ))  # fmt: skip


def _of_offers(name: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return f"{name}: no offer for this customer now; POST /v1/offers says why"
    return f"{name}\n" + _columns(("", "offer", "p", "until", "why"), (
        (str(item["rank"]), item["offer_id"], f"{item['score']:.3f}", f"{item['expires_at']:%Y-%m-%d}", item["reason"])
        for item in items
    ))  # fmt: skip


def _methods(table: pd.DataFrame, shown: Sequence[str], of: tuple[str, str, str]) -> str:
    cells = {(row["method"], row["figure"]): _between(*(row[name] for name in of)) for row in table.to_dict("records")}
    present = [name for name in shown if any(figure == name for _, figure in cells)]
    return _columns(("", *(HEADINGS[name] for name in present)), (
        (method, *(cells.get((method, name), "-") for name in present)) for method in table["method"].unique()
    ))  # fmt: skip


def _between(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or pd.isna(value):
        return "-"
    return f"{value:.4f}" if low is None or pd.isna(low) else f"{value:.4f} ({low:.4f} to {high:.4f})"


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    return "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in cells)  # fmt: skip
