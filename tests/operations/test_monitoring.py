"""Board and alert rules: they name only metrics that /metrics has, and Prometheus can read them."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from customers import setup
from customers.scores import score_store
from serving.http import prometheus, routes, shop_metrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs" / "operations" / "monitoring"
BOARD = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
METRIC = re.compile(r"\bregulars_\w+")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page /metrics of a shop that has had a sale, a night and a champion."""
    shop = setup.init_home(tmp_path_factory.mktemp("shop") / "home", now="2025-03-05")
    sales = shop.home.parent / "sales.csv"
    sales.write_text("order_id,customer_id,product_id,sold_at,quantity,amount\no1,c1,p1,2025-03-02,1,5\n")
    from customers.loading import load

    load.load_files(shop, "transactions", [sales])
    score_store.finish_run(shop, score_store.begin_run(shop, "churn", "1", datetime(2025, 3, 4, tzinfo=UTC)))
    champion = SimpleNamespace(version="1", facts={"trained_at": "2025-03-04T04:00:00+00:00"})
    champions = SimpleNamespace(get=lambda name: champion, errors={})
    runtime = SimpleNamespace(shop=shop, champions=champions, now=lambda: datetime(2025, 3, 5, tzinfo=UTC))
    prometheus.count_request("/v1/churn", "POST", 200, 0.01)
    prometheus.count_answers("churn", 2, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prometheus, "_collectors", [shop_metrics.ShopCollector(lambda: runtime)])  # type: ignore[arg-type]
        return bytes(prometheus.render_metrics().body).decode()


@pytest.fixture(scope="module")
def metrics(page: str) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in page.splitlines() if not line.startswith("#")}


def expressions_of_the_board() -> list[str]:
    targets = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]
    variables = [str(variable["query"]) for variable in BOARD["templating"]["list"]]
    return [*targets, *variables, *(each["expr"] for each in BOARD["annotations"]["list"])]


def test_the_board_names_only_metrics_that_exist(metrics: set[str]) -> None:
    named = {name for text in expressions_of_the_board() for name in METRIC.findall(text)}
    assert named
    assert named - metrics == set()


def test_the_rules_name_only_metrics_that_exist(metrics: set[str]) -> None:
    named = {name for rule in RULES for name in METRIC.findall(rule["expr"])}
    assert len(named) > 8
    assert named - metrics == set()


def test_every_gauge_of_the_shop_is_on_the_board(metrics: set[str]) -> None:
    named = {name for text in expressions_of_the_board() for name in METRIC.findall(text)}
    counted = {name for name in metrics if not name.endswith("_created")}
    assert counted - named == set()


def test_labels_in_the_board_and_the_rules_exist(page: str) -> None:
    """A panel that sums by a label that no metric has shows nothing."""
    labels = set(re.findall(r'(\w+)="', page)) | {"job", "instance"}
    texts = [*expressions_of_the_board(), *(rule["expr"] for rule in RULES)]
    grouped = {label for text in texts for group in re.findall(r"(?:by|on) \(([\w, ]+)\)", text)
               for label in group.split(", ")}  # fmt: skip
    matched = {label for text in texts for label in re.findall(r'(\w+)=~?"', text)}
    assert (grouped | matched) - labels == set()


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: list[tuple[int, int]] = []
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells += [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_names_a_section_of_the_runbooks(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook"].partition("#")
    text = (MONITORING.parent / page.replace(".html", ".md")).read_text(encoding="utf-8")
    headings = [line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("#")]
    assert section in {re.sub(r"[^\w]+", "-", heading).strip("-") for heading in headings}
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_latency_buckets_and_route_labels_are_on_the_page(page: str) -> None:
    assert 'regulars_request_seconds_bucket{le="0.025",route="/v1/churn"}' in page
    known = {route.path for route in (*routes.ROUTES, *routes.PAGES)} | {prometheus.UNMATCHED}
    assert set(re.findall(r'route="([^"]+)"', page)) <= known


def test_prometheus_can_read_the_rules() -> None:
    promtool = shutil.which("promtool") or pytest.skip("needs promtool; apt-get install prometheus")
    for command in (["rules", "alerts.yml"], ["config", "prometheus.yml"]):
        subprocess.run([promtool, "check", *command], cwd=MONITORING, check=True, capture_output=True)
