"""Quiet: nobody is told that a shop runs regulars, and idle threads do not spin on the cores that others need."""

import os

VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "FEAST_USAGE": "False",
    # LightGBM took six times the CPU with OpenMP's default.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
}


def set_variables() -> None:
    """Say so to every library; before numpy, MLflow, BentoML and Dagster are loaded, or they do not hear it."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
