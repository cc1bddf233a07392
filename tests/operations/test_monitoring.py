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


#: For each rule, series of a server that is in trouble: a value, or start+step for one that grows every minute.
TROUBLE = {
    "ServerDown": {"up": "0"},
    "ServerErrors": {'regulars_requests_total{status="200"}': "0+90", 'regulars_requests_total{status="500"}': "0+10"},
    "SlowAnswers": {
        f'regulars_request_seconds_bucket{{route="/v1/customers/{{customer_id}}/churn",le="{bound}"}}': growth
        for bound, growth in {"0.5": "0+90", "1": "0+100", "+Inf": "0+100"}.items()
    },
    "NightLate": {"regulars_night_age_seconds": str(31 * 3600)},
    "NoNight": {"up": "1"},
    "ChampionRefused": {'regulars_champion_refused{model="churn"}': "1"},
    "ChampionOld": {'regulars_champion_age_seconds{model="churn"}': str(46 * 86_400)},
    "ManyFallbacks": {
        'regulars_answers_total{question="churn"}': "0+100", 'regulars_fallbacks_total{question="churn"}': "0+60"
    },
    "RefreshLags": {"regulars_refresh_lag_seconds": "301"},
    "NoSales": {"regulars_last_sale_age_seconds": str(3 * 86_400)},
    "SourceUnreadable": {'regulars_source_readable{source="database"}': "0"},
    "ErasureIncomplete": {"regulars_pending_erasures": "1"},
    "DiskFilling": {"regulars_home_free_bytes": "14", "regulars_home_size_bytes": "100"},
}  # fmt: skip
#: A server in which all is well: the same series, with other values.
CALM = {
    "up": "1",
    'regulars_requests_total{status="200"}': "0+990",
    'regulars_requests_total{status="500"}': "0+10",
    'regulars_request_seconds_bucket{route="/v1/customers/{customer_id}/churn",le="0.5"}': "0+100",
    'regulars_request_seconds_bucket{route="/v1/customers/{customer_id}/churn",le="+Inf"}': "0+100",
    "regulars_night_age_seconds": str(25 * 3600),
    'regulars_champion_refused{model="churn"}': "0",
    'regulars_champion_age_seconds{model="churn"}': "86400",
    'regulars_answers_total{question="churn"}': "0+100",
    'regulars_fallbacks_total{question="churn"}': "0+10",
    "regulars_refresh_lag_seconds": "3",
    "regulars_last_sale_age_seconds": "3600",
    'regulars_source_readable{source="database"}': "1",
    "regulars_pending_erasures": "0",
    "regulars_home_free_bytes": "50",
    "regulars_home_size_bytes": "100",
}


def firing_alerts(series: dict[str, str], folder: Path) -> set[str]:
    """The rules that fire after 30 hours of these series, by Prometheus' own evaluation."""
    promtool = shutil.which("promtool") or pytest.skip("needs promtool; apt-get install prometheus")
    test = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": add_target(name), "values": f"{value}x1800" if "+" in value else f"{value}+0x1800"}
                    for name, value in series.items()
                ],
                "promql_expr_test": [
                    {"expr": f'count(ALERTS{{alertname="{rule["alert"]}",alertstate="firing"}})', "eval_time": "30h",
                     "exp_samples": []}
                    for rule in RULES
                ],
            }
        ],
    }  # fmt: skip
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(test), encoding="utf-8")
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return set(re.findall(r'alertname=\\?"(\w+)', done.stdout + done.stderr))


def add_target(series: str) -> str:
    """A series with the labels that Prometheus adds when it scrapes."""
    name, _, labels = series.partition("{")
    return f'{name}{{job="regulars",instance="a",{labels or "}"}'


@pytest.mark.parametrize("alert", TROUBLE)
def test_a_rule_fires_when_a_server_is_in_trouble(alert: str, tmp_path: Path) -> None:
    assert firing_alerts(TROUBLE[alert], tmp_path) >= {alert}


def test_no_rule_fires_for_a_server_in_which_all_is_well(tmp_path: Path) -> None:
    assert firing_alerts(CALM, tmp_path) == set()


def test_every_rule_has_a_case() -> None:
    assert {rule["alert"] for rule in RULES} == set(TROUBLE)
