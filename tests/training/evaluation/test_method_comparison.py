"""The long table of a backtest: means, intervals and leads that can be counted on one hand."""

import numpy as np
import pandas as pd
import pytest

from training.evaluation import method_comparison


def looks(mine: list[float], theirs: list[float]) -> dict[str, pd.DataFrame]:
    customers = pd.Index(np.arange(len(mine)), name="customer_key")
    return {"ours": pd.DataFrame({"hit": mine}, customers), "rival": pd.DataFrame({"hit": theirs}, customers)}


def rows(table: pd.DataFrame, segment: str = "all") -> pd.DataFrame:
    return table[table["segment"] == segment].set_index("method")


def test_the_lead_is_drawn_with_the_same_customers() -> None:
    values = np.random.default_rng(3).random(60)
    told = rows(
        method_comparison.compare_methods(looks(list(values + 0.25), list(values)), pd.Series(["x"] * 60), model="ours")
    )
    rival = told.loc["rival"]
    assert rival[["ahead", "ahead_low", "ahead_high"]].tolist() == pytest.approx([0.25] * 3)
    assert rival["low"] < rival["value"] < rival["high"]
    assert np.isnan(told.loc["ours", "ahead"])


def test_segments_are_told_beside_everyone() -> None:
    told = method_comparison.compare_methods(
        looks([1, 1, 0, np.nan], [0, 0, 0, 0]),
        pd.Series(["often", "often", "quiet", "quiet"]),
        model="ours",
        min_customers=1,
    )
    assert rows(told).loc["ours", "value"] == pytest.approx(2 / 3)
    assert rows(told).loc["ours", "observations"] == 3
    assert rows(told, "often").loc["ours", "value"] == 1
    assert rows(told, "quiet").loc["ours", "value"] == 0


def test_a_segment_of_few_customers_is_not_told() -> None:
    customers = pd.Index([*range(30), *range(100, 129), *range(100, 129)])  # 29 of them twice
    frame = pd.DataFrame({"hit": 1.0, "new": [np.nan, *[1.0] * 87]}, customers)
    told = method_comparison.compare_methods({"ours": frame}, pd.Series(["often"] * 30 + ["quiet"] * 58), model="ours")
    assert set(told["segment"]) == {"all", "often"}
    assert set(told.loc[told["segment"] == "often", "figure"]) == {"hit"}, "29 of them bought something new"
    assert set(told.loc[told["segment"] == "all", "figure"]) == {"hit", "new"}


def test_a_customer_seen_twice_is_drawn_with_both() -> None:
    frame = pd.DataFrame({"hit": [1.0, 0.0, 1.0, 0.0]}, index=[1, 1, 2, 2])
    told = rows(method_comparison.compare_methods({"ours": frame}, pd.Series(["x"] * 4), model="ours"))
    assert told.loc["ours", ["low", "value", "high"]].tolist() == [0.5, 0.5, 0.5]


def test_offers_are_judged_by_household_and_campaign_and_over_all_pairs() -> None:
    customers = np.array([1, 1, 1, 2, 2])
    redeemed = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    chances = {"ours": np.array([0.9, 0.1, 0.2, 0.8, 0.3]), "rival": np.array([0.1, 0.5, 0.4, 0.3, 0.9])}
    segments = np.array(["often"] * 3 + ["seldom"] * 2, dtype=object)
    told = method_comparison.compare_offers(
        customers, customers, redeemed, chances, segments, model="ours", min_customers=1
    )
    everyone = told[told["segment"] == "all"].set_index(["method", "figure"])["value"]
    assert everyone["ours", "map"] == 1
    assert everyone["rival", "map"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert everyone["ours", "auc"] == 1
    assert everyone["rival", "auc"] == pytest.approx(0 / 6)
    assert told.loc[(told["segment"] == "seldom") & (told["method"] == "rival"), "value"].iloc[0] == pytest.approx(
        1 / 2
    )


def test_figures_of_all_lists_together_have_no_interval() -> None:
    told = method_comparison.overall_rows({"ours": {"coverage": 0.5}}, 10)
    assert told[["method", "figure", "value"]].to_numpy().tolist() == [["ours", "coverage", 0.5]]
    assert told["low"].isna().all()


def test_figures_that_are_no_means_have_intervals_and_a_lead_drawn_together() -> None:
    found = {"model": pd.Series({"ece": 0.02}), "rule": pd.Series({"ece": 0.05})}
    drawn = {"model": pd.DataFrame({"ece": np.linspace(0.01, 0.03, 201)})}
    drawn["rule"] = drawn["model"] + 0.03
    rows = method_comparison.compare_drawn_metrics(found, drawn, 40, segment="all", model="model").set_index("method")
    assert rows.loc["model", "low"] == pytest.approx(0.0105)
    assert np.isnan(rows.loc["model", "ahead"])
    assert [rows.loc["rule", name] for name in ("ahead", "ahead_low", "ahead_high")] == pytest.approx([-0.03] * 3)
    assert rows["observations"].tolist() == [40, 40]
