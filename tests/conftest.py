"""One quiet machine for every test: no telemetry, and two cores that are not fought over."""

import os

os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    BENTOML_DO_NOT_TRACK="True",
    OMP_WAIT_POLICY="PASSIVE",
    OPENBLAS_NUM_THREADS="1",
)
for name in [name for name in os.environ if name.startswith("REGULARS_")]:
    del os.environ[name]
