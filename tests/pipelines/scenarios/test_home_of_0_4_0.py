"""A home made by version 0.4.0 opens, serves the same scores and rolls back, whatever was renamed since."""

import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models import registry

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "home_0_4_0.tar.xz"
ENDPOINTS = ("churn", "next-purchase", "value", "restock", "recommendations", "offers")
CUSTOMER_IDS = [*(f"c{number:03d}" for number in range(40)), "nobody"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home as 0.4.0 left it, two versions of every model on record."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"


@pytest.fixture(scope="module")
def answers(home: Path) -> dict[str, Any]:
    """The responses of 0.4.0 over this home."""
    return json.loads((home / "answers_0_4_0.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Any]:
    """A client of this version's service over that home, with an admin key."""
    from starlette.testclient import TestClient

    from customers.database import engine
    from customers.security import api_keys
    from customers.shop import settings
    from serving import runtime
    from serving.service import Regulars

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_HOME", str(home))
        shop = settings.open_shop(home)
        engine.upgrade_schema(shop)
        runtime.open_runtime(shop).features.apply()
        headers = {"Authorization": f"Bearer {api_keys.create_key(shop, 'admin')}"}
        with TestClient(Regulars.to_asgi(), headers=headers) as client:
            yield client


def results(client: Any, endpoint: str) -> list[dict[str, Any]]:
    response = client.post(f"/v1/{endpoint}", json={"customer_ids": CUSTOMER_IDS})
    assert response.status_code == 200, response.text
    return response.json()["results"]


def assert_same(actual: Any, expected: Any, where: str = "") -> None:
    """Equal, but for numbers, which may differ by 1e-6."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), where
        for name, value in expected.items():
            assert_same(actual[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for position, value in enumerate(expected):
            assert_same(actual[position], value, f"{where}[{position}]")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, abs=1e-6), where
    else:
        assert actual == expected, where


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_home_of_0_4_0_serves_the_same_scores(client: Any, answers: dict[str, Any], endpoint: str) -> None:
    assert_same(results(client, endpoint), answers[endpoint])


def test_a_home_of_0_4_0_has_the_same_at_risk_list(client: Any, answers: dict[str, Any]) -> None:
    response = client.get("/v1/at-risk", params={"limit": 50}).json()
    assert_same(response["items"], answers["at-risk"]["items"])


def test_model_versions_of_0_4_0_open_in_mlflow(home: Path) -> None:
    """MLflow calls the loader that a version names: `models.registry`, a module in 0.4.0 and a folder today."""
    saved = list((home / "mlflow").rglob("MLmodel"))
    assert len(saved) == 12, "six models, two versions each"
    assert all("loader_module: models.registry\n" in path.read_text() for path in saved)
    assert registry._load_pyfunc(str(saved[0].parent / "data" / "served")) is not None


def test_a_home_of_0_4_0_rolls_back(client: Any, home: Path, answers: dict[str, Any]) -> None:
    from customers.shop import settings
    from training import promotion

    assert promotion.rollback(settings.open_shop(home), "churn") == "1"
    served = _served_version(client)
    assert served == "1", "a server notices a rollback within seconds, without a restart"
    assert_same(results(client, "churn"), answers["churn-after-rollback"])


def _served_version(client: Any, *, seconds: float = 15.0) -> str:
    """The version of churn that is served, once it is version 1 or the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        response = client.post("/v1/churn", json={"customer_ids": ["c000"]}).json()
        version = response["models"][0]["version"]
        if version == "1" or time.monotonic() > deadline:
            return str(version)
        time.sleep(0.2)
