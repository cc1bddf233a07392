"""After a nightly run, a sale posted over HTTP changes the customer's predictions at once."""

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

pytestmark = pytest.mark.acceptance  # after a whole night

MODELS = {"churn", "timing", "value", "recommender", "restock", "offers"}


@pytest.fixture(scope="module")
def served_shop(first_run_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The small grocer after its first nightly run: shop and API client."""
    from starlette.testclient import TestClient

    from serving.service import Regulars

    home = tmp_path_factory.mktemp("day") / "home"
    shutil.copytree(first_run_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_HOME", str(home))
        shop = settings.open_shop(home)
        headers = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}"}
        with TestClient(Regulars.to_asgi(), raise_server_exceptions=False, headers=headers) as api:
            yield SimpleNamespace(shop=shop, api=api)


def get_json(served_shop: SimpleNamespace, path: str) -> Any:
    response = served_shop.api.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def predictions(
    served_shop: SimpleNamespace, customer_id: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The churn result, the next-purchase result and the at-risk entry of one customer."""
    churn, timing = (
        get_json(served_shop, f"/v1/customers/{customer_id}/{endpoint}")["results"][0]
        for endpoint in ("churn", "next-purchase")
    )
    lists = [
        get_json(served_shop, f"/v1/at-risk?limit=1000&band={band}")["items"]
        for band in ("low", "medium", "high", "lapsed")
    ]
    (entry,) = [entry for items in lists for entry in items if entry["customer_id"] == customer_id]
    return churn, timing, entry


def test_a_sale_lowers_churn_and_moves_the_next_purchase(served_shop: SimpleNamespace) -> None:
    customer_id = get_json(served_shop, "/v1/at-risk?limit=1&band=high")["items"][0]["customer_id"]
    churn, timing, entry = predictions(served_shop, customer_id)
    sale = {
        "order_id": "today",
        "customer_id": customer_id,
        "product_id": "p00",
        "sold_at": (clock.now(served_shop.shop) - timedelta(hours=1)).isoformat(),
        "quantity": 1,
        "amount": "4.00",
    }
    result = served_shop.api.post("/v1/transactions", json=sale).json()
    assert (result["inserted"], result["refreshed"]) == (1, True)

    new_churn, new_timing, new_entry = predictions(served_shop, customer_id)
    assert new_churn["probability"] < churn["probability"] - 0.1
    assert new_timing["p"]["28"] > timing["p"]["28"]
    assert new_timing["expected_at"] != timing["expected_at"]
    assert entry["churn_probability"] == churn["probability"]
    assert new_entry["churn_probability"] == new_churn["probability"]
    assert new_entry["expected_next_purchase_at"] == new_timing["expected_at"]
    assert new_entry["days_overdue"] == 0
    scores = get_json(served_shop, f"/v1/customers/{customer_id}/scores")["scores"]
    assert scores.keys() == MODELS
    score_times = {datetime.fromisoformat(score["as_of"]) for score in scores.values()}
    assert min(score_times) > datetime.fromisoformat(churn["features_as_of"])
