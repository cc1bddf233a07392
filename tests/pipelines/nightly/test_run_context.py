"""Rows to train on: at most so many customers, the same ones every night, each with all of their rows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipelines.nightly import run_context
from pipelines.nightly.run_context import RunContext, choose_training_customers, sample_customers
from training.tasks import all_tasks


def make_rows(customers: int, rows_each: int = 3) -> pd.DataFrame:
    keys = np.tile(np.arange(1, customers + 1), rows_each)
    return pd.DataFrame({"customer_key": keys, "row": np.arange(len(keys))})


def test_few_customers_are_all_used() -> None:
    rows = make_rows(10)
    pd.testing.assert_frame_equal(sample_customers(rows, 10), rows)


def test_a_sampled_customer_has_all_their_rows_in_order() -> None:
    sampled = sample_customers(make_rows(1_000), 100)
    assert sampled["customer_key"].nunique() == 100
    assert (sampled["customer_key"].value_counts() == 3).all()
    assert sampled["row"].is_monotonic_increasing


def test_the_sample_hardly_changes_when_customers_join() -> None:
    before, after = (set(sample_customers(make_rows(count), 100)["customer_key"]) for count in (1_000, 1_050))
    assert len(before & after) >= 85


def test_the_sample_does_not_follow_the_order_of_keys() -> None:
    sampled = np.sort(sample_customers(make_rows(10_000), 1_000)["customer_key"].unique())
    assert abs(sampled.mean() - 5_000) < 300


def test_without_rows_there_is_nothing_to_sample() -> None:
    assert sample_customers(make_rows(0), 100).empty


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> RunContext:
    """A run whose every task has the rows of ten customers."""
    rows = make_rows(10).assign(event_timestamp=pd.Timestamp("2026-01-01", tz="UTC"))
    monkeypatch.setattr(RunContext, "_load_entities", lambda self, task: rows)
    monkeypatch.setattr(run_context, "filter_for_training", lambda shop, rows: rows)
    features = SimpleNamespace(
        feature_names=lambda service: [service if service in run_context.ENTITY_VIEWS else "purchase_days"],
        historical_features=lambda service, entities: entities.assign(service=service),
    )
    return RunContext(None, None, False, None, features, "", None, np.arange(1, 11))


def test_tasks_with_the_same_rows_are_trained_one_after_the_other(context: RunContext) -> None:
    names = [task.name for task in context.group_by_rows(all_tasks.TASKS)]
    assert names == ["recommender", "offers", "churn", "timing", "value", "restock"]


def test_a_run_holds_the_rows_of_one_task_and_reads_equal_rows_once(context: RunContext) -> None:
    churn, timing, recommender = (
        context.load_task_frame(all_tasks.get_task(name)) for name in ("churn", "timing", "recommender")
    )
    assert timing is churn
    (held,) = context._frames.values()
    assert held is recommender


def test_customers_to_train_on_are_chosen_once_for_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_context, "filter_for_training", lambda shop, rows: rows[rows["customer_key"] % 2 == 0])
    chosen = choose_training_customers(None, make_rows(50_000), make_rows(0))
    assert len(chosen) == max(task.max_customers for task in all_tasks.TASKS)
    assert (chosen % 2 == 0).all()
    assert (np.diff(chosen) > 0).all()
    assert choose_training_customers(None, make_rows(4), make_rows(0)).tolist() == [2, 4]


def test_offers_are_learned_from_enough_of_the_few_who_received_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_context, "filter_for_training", lambda shop, rows: rows)
    recipients = make_rows(6_000).assign(customer_key=lambda rows: rows["customer_key"] * 100)
    chosen = choose_training_customers(None, make_rows(600_000, 1), recipients)
    assert np.isin(chosen, recipients["customer_key"]).sum() >= all_tasks.get_task("offers").max_customers


def test_the_sample_of_a_task_is_part_of_the_customers_to_train_on() -> None:
    chosen = sample_customers(make_rows(1_000), 200)
    smaller = sample_customers(make_rows(1_000), 50)
    assert set(sample_customers(chosen, 50)["customer_key"]) == set(smaller["customer_key"])


def test_offers_are_learned_from_the_customers_of_the_sample_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run_context, "filter_for_training", lambda shop, rows: rows)
    (tmp_path / "prices").mkdir()
    pd.DataFrame({"price": [1.0]}).to_parquet(tmp_path / "prices" / "part.parquet")
    deliveries = make_rows(10).drop(columns="row").assign(event_timestamp=pd.Timestamp("2026-01-01", tz="UTC"))
    pairs = deliveries.rename(columns={"event_timestamp": "as_of"}).assign(offer_key=1)
    catalogue = SimpleNamespace(covered_products=None, offers=None)
    campaigns = SimpleNamespace(deliveries=deliveries, redeemable_offers=pairs, catalogue=catalogue)
    features = SimpleNamespace(
        folder=tmp_path,
        feature_names=lambda service: ["weights_84d"],
        historical_features=lambda service, entities: entities,
    )
    monkeypatch.setattr(run_context.affinity, "build_affinity_features", lambda features, pairs, *others: pairs)
    monkeypatch.setattr(run_context.category_affinity.ProductCategoryCodes, "from_catalogue", lambda products: None)
    training_data = SimpleNamespace(products=None)
    context = RunContext(None, None, False, training_data, features, "", campaigns, np.array([2, 3, 5]))
    frame = context.load_task_frame(all_tasks.get_task("offers"))
    assert set(frame["customer_key"]) == {2, 3, 5}
