"""The long table of a backtest: means, intervals and differences, small enough to compute by hand."""

import numpy as np
import pandas as pd
import pytest

from training.evaluation import method_comparison


def customer_metrics(ours: list[float], baseline: list[float]) -> dict[str, pd.DataFrame]:
    customers = pd.Index(np.arange(len(ours)), name="customer_key")
    return {"ours": pd.DataFrame({"hit": ours}, customers), "baseline": pd.DataFrame({"hit": baseline}, customers)}


def rows(table: pd.DataFrame, segment: str = "all") -> pd.DataFrame:
    return table[table["segment"] == segment].set_index("method")


def test_the_difference_is_drawn_with_the_same_customers() -> None:
    values = np.random.default_rng(3).random(60)
    comparison = rows(
        method_comparison.compare_methods(
            customer_metrics(list(values + 0.25), list(values)), pd.Series(["x"] * 60), model="ours"
        )
    )
    baseline = comparison.loc["baseline"]
    assert baseline[["ahead", "ahead_low", "ahead_high"]].tolist() == pytest.approx([0.25] * 3)
    assert baseline["low"] < baseline["value"] < baseline["high"]
    assert np.isnan(comparison.loc["ours", "ahead"])


def test_segments_are_reported_beside_all_customers() -> None:
    comparison = method_comparison.compare_methods(
        customer_metrics([1, 1, 0, np.nan], [0, 0, 0, 0]),
        pd.Series(["often", "often", "quiet", "quiet"]),
        model="ours",
        min_customers=1,
    )
    assert rows(comparison).loc["ours", "value"] == pytest.approx(2 / 3)
    assert rows(comparison).loc["ours", "observations"] == 3
    assert rows(comparison, "often").loc["ours", "value"] == 1
    assert rows(comparison, "quiet").loc["ours", "value"] == 0


def test_a_segment_of_few_customers_is_not_reported() -> None:
    customers = pd.Index([*range(30), *range(100, 129), *range(100, 129)])  # 29 of them twice
    frame = pd.DataFrame({"hit": 1.0, "new": [np.nan, *[1.0] * 87]}, customers)
    comparison = method_comparison.compare_methods(
        {"ours": frame}, pd.Series(["often"] * 30 + ["quiet"] * 58), model="ours"
    )
    assert set(comparison["segment"]) == {"all", "often"}
    assert set(comparison.loc[comparison["segment"] == "often", "figure"]) == {"hit"}, "29 of them bought something new"
    assert set(comparison.loc[comparison["segment"] == "all", "figure"]) == {"hit", "new"}


def test_a_customer_with_two_rows_is_drawn_with_both() -> None:
    frame = pd.DataFrame({"hit": [1.0, 0.0, 1.0, 0.0]}, index=[1, 1, 2, 2])
    comparison = rows(method_comparison.compare_methods({"ours": frame}, pd.Series(["x"] * 4), model="ours"))
    assert comparison.loc["ours", ["low", "value", "high"]].tolist() == [0.5, 0.5, 0.5]


def test_offers_are_evaluated_by_household_and_campaign_and_over_all_pairs() -> None:
    customers = np.array([1, 1, 1, 2, 2])
    redeemed = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    probabilities = {"ours": np.array([0.9, 0.1, 0.2, 0.8, 0.3]), "baseline": np.array([0.1, 0.5, 0.4, 0.3, 0.9])}
    segments = np.array(["often"] * 3 + ["seldom"] * 2, dtype=object)
    comparison = method_comparison.compare_offers(
        customers, customers, redeemed, probabilities, segments, model="ours", min_customers=1
    )
    all_customers = comparison[comparison["segment"] == "all"].set_index(["method", "figure"])["value"]
    assert all_customers["ours", "map"] == 1
    assert all_customers["baseline", "map"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert all_customers["ours", "auc"] == 1
    assert all_customers["baseline", "auc"] == pytest.approx(0 / 6)
    assert comparison.loc[(comparison["segment"] == "seldom") & (comparison["method"] == "baseline"), "value"].iloc[
        0
    ] == pytest.approx(1 / 2)


def test_metrics_of_all_lists_together_have_no_interval() -> None:
    comparison = method_comparison.overall_rows({"ours": {"coverage": 0.5}}, 10)
    assert comparison[["method", "figure", "value"]].to_numpy().tolist() == [["ours", "coverage", 0.5]]
    assert comparison["low"].isna().all()


def test_metrics_that_are_no_means_have_intervals_and_a_difference_drawn_together() -> None:
    metrics = {"model": pd.Series({"ece": 0.02}), "rule": pd.Series({"ece": 0.05})}
    drawn = {"model": pd.DataFrame({"ece": np.linspace(0.01, 0.03, 201)})}
    drawn["rule"] = drawn["model"] + 0.03
    comparison = method_comparison.compare_drawn_metrics(metrics, drawn, 40, segment="all", model="model").set_index(
        "method"
    )
    assert comparison.loc["model", "low"] == pytest.approx(0.0105)
    assert np.isnan(comparison.loc["model", "ahead"])
    assert [comparison.loc["rule", name] for name in ("ahead", "ahead_low", "ahead_high")] == pytest.approx([-0.03] * 3)
    assert comparison["observations"].tolist() == [40, 40]
