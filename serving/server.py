"""Start the HTTP server of one shop home, with an environment that shares nothing with other homes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from customers.shop.settings import Shop


def serve(shop: Shop, *, port: int = 3000, workers: int = 1, host: str = "127.0.0.1") -> NoReturn:
    """Replace this process by the server of this shop, until Ctrl-C.

    `host` is the address to listen on; the default accepts connections from this machine only.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, build_command(shop, port=port, host=host), build_environment(shop, workers=workers))


def build_command(shop: Shop, *, port: int, host: str = "127.0.0.1") -> list[str]:
    """The command line that serves this shop; it must run with the variables of `build_environment`."""
    options = ["--working-dir", str(shop.home), "--host", host, "--port", str(port)]
    return [sys.executable, "-m", "bentoml", "serve", "serving.service:Regulars", *options]


def build_environment(shop: Shop, *, workers: int = 1) -> dict[str, str]:
    """The environment variables that must be set before BentoML is imported.

    BENTOML_HOME is the folder of BentoML's files and of the workers' metric counts, which it empties at start. Its
    default is one folder per user, which all shops would share.
    """
    code_root = str(Path(__file__).resolve().parents[1])
    overrides = {
        "REGULARS_HOME": str(shop.home),
        "REGULARS_WORKERS": str(workers),
        "BENTOML_HOME": str(shop.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": os.pathsep.join(filter(None, (code_root, os.environ.get("PYTHONPATH")))),
    }
    # Many small requests run at once: threads inside one of them would only wait for each other.
    defaults = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
    # A nightly run in this process has loaded Feast, which leaves its own metrics folder in the environment.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}
    return {**defaults, **inherited, **overrides}
