"""Gauges of the shop: ages of night, models, features and data, and what happens when they cannot be read."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from customers import clock, setup
from customers.database import engine
from customers.loading import load
from customers.scores import score_store
from customers.shop.settings import Shop
from serving.http import prometheus, shop_metrics
from serving.runtime import MODEL_NAMES

SOLD_AT = datetime(2025, 3, 2, 10, tzinfo=UTC)
AS_OF = datetime(2025, 3, 3, tzinfo=UTC)
Samples = dict[tuple[str, tuple[str, ...]], float]


class ChampionList(SimpleNamespace):
    """Champions by name, and why a newer one was refused."""

    def get(self, name: str) -> Any:
        return self.champions.get(name)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """One sale at 10 o'clock UTC, and a clock at the start of the next day."""
    shop = setup.init_home(tmp_path / "home", timezone="UTC", now="last-sale")
    sales = tmp_path / "sales.csv"
    sales.write_text(f"order_id,customer_id,product_id,sold_at,quantity,amount\no1,c1,p1,{SOLD_AT.isoformat()},1,5\n")
    load.load_files(shop, "transactions", [sales])
    return shop


def make_runtime(shop: Shop, **champions: Any) -> SimpleNamespace:
    return SimpleNamespace(
        shop=shop, champions=ChampionList(champions=champions, errors={}), now=lambda: clock.now(shop)
    )


def make_champion(trained_at: datetime, version: str = "1") -> SimpleNamespace:
    return SimpleNamespace(version=version, facts={"trained_at": trained_at.isoformat(timespec="seconds")})


def read_samples(get_runtime: Callable[[], Any], **options: Any) -> Samples:
    collector = shop_metrics.ShopCollector(get_runtime, **options)
    return samples_of_families(collector.collect())


def samples_of_families(families: Any) -> Samples:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_before_the_first_run_there_is_no_age_of_a_night(shop: Shop) -> None:
    samples = read_samples(lambda: make_runtime(shop))
    assert samples["regulars_last_sale_age_seconds", ()] == 14 * 3600
    assert samples["regulars_pending_erasures", ()] == 0
    assert not [name for name, _ in samples if name.startswith(("regulars_night", "regulars_features"))]
    assert not [name for name, _ in samples if name in ("regulars_champion_age_seconds", "regulars_champion_info")]
    readable = {labels[0]: value for (name, labels), value in samples.items() if name == "regulars_source_readable"}
    assert readable == dict.fromkeys(shop_metrics.SOURCES, 1)


def test_features_age_by_the_clock_of_the_shop_and_the_night_by_the_real_one(shop: Shop) -> None:
    score_store.finish_run(shop, score_store.begin_run(shop, "churn", "1", AS_OF - timedelta(days=2)))
    samples = read_samples(lambda: make_runtime(shop))
    assert samples["regulars_features_age_seconds", ()] == 2 * 86_400
    assert 0 <= samples["regulars_night_age_seconds", ()] < 60


def test_champions_age_from_their_training_on(shop: Shop) -> None:
    runtime = make_runtime(shop, churn=make_champion(datetime.now(UTC) - timedelta(days=3), version="7"))
    runtime.champions.errors["timing"] = "its digest differs"
    samples = read_samples(lambda: runtime)
    assert samples["regulars_champion_age_seconds", ("churn",)] == pytest.approx(3 * 86_400, abs=60)
    assert samples["regulars_champion_info", ("churn", "7")] == 1
    refused = {labels[0]: value for (name, labels), value in samples.items() if name == "regulars_champion_refused"}
    assert refused == dict.fromkeys(MODEL_NAMES, 0) | {"timing": 1}
    assert ("regulars_champion_age_seconds", ("timing",)) not in samples


def test_the_disk_of_the_home_is_measured(shop: Shop) -> None:
    samples = read_samples(lambda: make_runtime(shop))
    assert 0 < samples["regulars_home_free_bytes", ()] <= samples["regulars_home_size_bytes", ()]


def test_an_unreadable_database_leaves_the_other_gauges(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    runtime = make_runtime(shop, churn=make_champion(AS_OF))
    engine.get_engine(shop).dispose()
    (shop.home / "shop.db").write_bytes(b"this is no database" * 100)
    samples = read_samples(lambda: runtime)
    readable = {labels[0]: value for (name, labels), value in samples.items() if name == "regulars_source_readable"}
    unreadable = {source for source, is_readable in readable.items() if not is_readable}
    assert "database" in unreadable
    assert not unreadable & {"champions", "disk"}
    assert ("regulars_champion_info", ("churn", "1")) in samples
    assert ("regulars_last_sale_age_seconds", ()) not in samples
    assert len(caplog.messages) == len(unreadable)
    assert str(shop.home) not in caplog.text


def test_without_a_runtime_nothing_is_readable() -> None:
    def fail() -> Any:
        raise RuntimeError("no shop here")

    assert set(read_samples(fail).values()) == {0}


def test_the_shop_is_read_at_most_once_in_a_while(shop: Shop) -> None:
    reads, now = [], [0.0]

    def get_runtime() -> Any:
        reads.append(now[0])
        return make_runtime(shop)

    collector = shop_metrics.ShopCollector(get_runtime, hold_seconds=5, clock=lambda: now[0])
    per_reading = len(shop_metrics.SOURCES)
    for now[0] in (0.0, 4.9, 5.0, 6.0, 10.0):
        collector.collect()
    assert reads == [0.0] * per_reading + [5.0] * per_reading + [10.0] * per_reading


def test_collectors_are_on_the_page_beside_the_counters(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_collectors", [])
    prometheus.add_collector(shop_metrics.ShopCollector(lambda: make_runtime(shop)))
    prometheus.count_request("/v1/churn", "POST", 200, 0.01)
    for _ in range(2):
        page = bytes(prometheus.render_metrics().body).decode()
        samples = samples_of_families(text_string_to_metric_families(page))
        assert samples["regulars_last_sale_age_seconds", ()] == 14 * 3600
        assert samples["regulars_request_seconds_count", ("/v1/churn",)] >= 1
