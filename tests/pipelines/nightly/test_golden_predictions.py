"""Every champion of a nightly run has golden predictions, made of nobody's rows, and passes its check."""

from pathlib import Path

import pytest

from models.registry import champion_checks, golden

pytestmark = pytest.mark.acceptance  # after a whole night

MODELS = ("recommender", "offers", "churn", "timing", "restock", "value")


@pytest.mark.parametrize("name", MODELS)
def test_a_champion_has_golden_predictions_and_passes(first_run_home: Path, name: str) -> None:
    (folder,) = [path for path in (first_run_home / "champions" / name).iterdir() if path.is_dir()]
    assert golden.has_golden(folder)
    inputs, outputs = golden.read(folder)
    assert inputs["customer_key"].max() < golden.CUSTOMERS
    assert len(outputs)
    assert champion_checks.check(folder) is None
