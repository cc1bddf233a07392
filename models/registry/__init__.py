"""Model bundles, champions, and the MLflow registry."""

from typing import Any


def _load_pyfunc(path: str) -> Any:
    """MLflow's entry point: versions logged by 0.4.0 name `models.registry` as their loader, so new ones do too."""
    from models.registry.mlflow_registry import load_pyfunc

    return load_pyfunc(path)
