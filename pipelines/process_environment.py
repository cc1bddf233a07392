"""Environment variables of every process: no telemetry of any library, and idle threads that do not spin."""

import os

VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "FEAST_USAGE": "False",
    # With OpenMP's default, LightGBM took six times the CPU.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
}


def set_variables() -> None:
    """Set the variables that are not set. Call it before numpy, MLflow, BentoML and Dagster are imported."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
