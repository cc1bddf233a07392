"""After a real night a sale at the till changes what everybody is told of its customer, over HTTP."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from customers import clock
from customers.security import api_keys
from customers.shop import settings

MODELS = {"churn", "timing", "value", "recommender", "restock", "offers"}


@pytest.fixture(scope="module")
def open_day(first_night_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The small grocer on the morning after the first night."""
    from starlette.testclient import TestClient

    from serving.service import Regulars

    home = tmp_path_factory.mktemp("day") / "home"
    shutil.copytree(first_night_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_HOME", str(home))
        shop = settings.open_shop(home)
        door = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}"}
        with TestClient(Regulars.to_asgi(), raise_server_exceptions=False, headers=door) as api:
            yield SimpleNamespace(shop=shop, api=api)


def read(day: SimpleNamespace, path: str) -> Any:
    response = day.api.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def told(day: SimpleNamespace, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Churn, return and the entry on the list of those at risk, of one customer."""
    quiet, back = (read(day, f"/v1/customers/{name}/{what}")["results"][0] for what in ("churn", "next-purchase"))
    lists = [read(day, f"/v1/at-risk?limit=1000&band={band}")["items"] for band in ("low", "medium", "high", "lapsed")]
    (entry,) = [entry for items in lists for entry in items if entry["customer_id"] == name]
    return quiet, back, entry


def test_a_sale_lowers_churn_and_moves_the_next_purchase(open_day: SimpleNamespace) -> None:
    name = read(open_day, "/v1/at-risk?limit=1&band=high")["items"][0]["customer_id"]
    quiet, back, entry = told(open_day, name)
    sale = {
        "order_id": "today",
        "customer_id": name,
        "product_id": "p00",
        "sold_at": (clock.now(open_day.shop) - timedelta(hours=1)).isoformat(),
        "quantity": 1,
        "amount": "4.00",
    }
    kept = open_day.api.post("/v1/transactions", json=sale).json()
    assert (kept["inserted"], kept["refreshed"]) == (1, True)

    quieter, sooner, moved = told(open_day, name)
    assert quieter["probability"] < quiet["probability"] - 0.1
    assert sooner["p"]["28"] > back["p"]["28"]
    assert sooner["expected_at"] != back["expected_at"]
    assert entry["churn_probability"] == quiet["probability"]
    assert moved["churn_probability"] == quieter["probability"]
    assert moved["expected_next_purchase_at"] == sooner["expected_at"]
    assert moved["days_overdue"] == 0
    shown = read(open_day, f"/v1/customers/{name}/scores")["scores"]
    assert shown.keys() == MODELS
    seen = {datetime.fromisoformat(score["as_of"]) for score in shown.values()}
    assert min(seen) > datetime.fromisoformat(quiet["features_as_of"])
