"""The server of one shop home: a supervisor that listens on the port and keeps worker processes running.

The supervisor imports only the standard library. Workers accept connections from its one listening socket: while one is
down, or not up yet, connections wait for another, and only requests that a killed worker was serving are lost.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from customers.shop.settings import Shop

#: Connections that wait to be accepted; the kernel may allow fewer.
BACKLOG = 2048
#: Seconds that workers have to finish what they are serving, after a signal to stop.
GRACE_SECONDS = 15.0
#: A worker that ran for less than this is started again only after a pause, which doubles up to the limit.
SHORT_RUN_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 0.5, 30.0
_CHECK_SECONDS = 0.05


def serve(
    shop: Shop, *, port: int = 3000, workers: int = 1, host: str = "127.0.0.1", companion: Sequence[str] = ()
) -> NoReturn:
    """Replace this process by the server of this shop, until Ctrl-C; `companion` as in `build_command`.

    `host` is the address to listen on; the default accepts connections from this machine only.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    command = build_command(shop, port=port, host=host, companion=companion)
    os.execve(sys.executable, command, build_environment(shop, workers=workers))


def build_command(shop: Shop, *, port: int, host: str = "127.0.0.1", companion: Sequence[str] = ()) -> list[str]:
    """The command line that serves this shop; it must run with the variables of `build_environment`.

    `companion` is a command that the supervisor keeps running beside the workers.
    """
    options = ["--working-dir", str(shop.home), "--host", host, "--port", str(port)]
    options += ["--companion", shlex.join(companion)] if companion else []
    return [sys.executable, "-m", "serving.server", *options]


def build_environment(shop: Shop, *, workers: int = 1) -> dict[str, str]:
    """The environment variables of supervisor and workers, to be set before any library is imported.

    BENTOML_HOME is the folder of BentoML's files and of the workers' metric counts, which the supervisor empties at
    start. Its default is one folder per user, which all shops would share.
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
    # Many small requests run at once: threads inside one of them would only wait for each other. What a worker needs
    # for a moment goes back to the system; pages of the database are shared by the workers, in the system's cache.
    defaults = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": "4194304",
        "MALLOC_TRIM_THRESHOLD_": "16777216",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "REGULARS_SQLITE_CACHE_KB": "8192",
    }
    # A nightly run in this process has loaded Feast, which leaves its own metrics folder in the environment.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}
    return {**defaults, **inherited, **overrides}


@dataclass
class _Worker:
    """One place for a process, which is started again whenever it ends."""

    command: list[str]
    listens: bool = True
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_after: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS


@dataclass
class Supervisor:
    """Keeps `worker_count` workers running on a listening socket, until it is stopped.

    Beside them it runs `companion`, a command, where that is given.
    """

    listening: socket.socket
    worker_count: int
    counts_folder: Path
    companion: list[str] | None = None
    is_stopping: bool = field(default=False, init=False)
    _workers: list[_Worker] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Start the workers and start again each that ends; return once `stop` was called and all have ended."""
        serve = [sys.executable, "-m", "serving.worker", str(self.listening.fileno())]
        self._workers = [_Worker(serve) for _ in range(self.worker_count)]
        if self.companion:
            self._workers.append(_Worker(self.companion, listens=False))
        while not self.is_stopping:
            for worker in self._workers:
                self._keep_running(worker)
            time.sleep(_CHECK_SECONDS)
        self._end_workers()

    def stop(self, *_signal: object) -> None:
        """Let the workers finish what they are serving, and end."""
        self.is_stopping = True

    def _keep_running(self, worker: _Worker) -> None:
        now = time.monotonic()
        if worker.process and worker.process.poll() is not None:
            self._forget_gauges(worker.process.pid)
            is_short = now - worker.started_at < SHORT_RUN_SECONDS
            worker.start_after = now + (worker.pause_seconds if is_short else 0.0)
            worker.pause_seconds = (
                min(2 * worker.pause_seconds, LONGEST_PAUSE_SECONDS) if is_short else (FIRST_PAUSE_SECONDS)
            )
            _report(f"process {worker.process.pid} ended ({worker.process.returncode}); another starts", "warning")
            worker.process = None
        if worker.process is None and now >= worker.start_after:
            worker.process, worker.started_at = self._start(worker), now

    def _start(self, worker: _Worker) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(self.counts_folder)}
        return subprocess.Popen(
            worker.command, env=environment, pass_fds=[self.listening.fileno()] if worker.listens else ()
        )

    def _forget_gauges(self, pid: int) -> None:
        """Remove the present values of a dead worker; what it counted stays in the sums."""
        for path in self.counts_folder.glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    def _end_workers(self) -> None:
        processes = [worker.process for worker in self._workers if worker.process]
        self.listening.close()
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS + 1.0
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError where the address is in use or not one of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(BACKLOG)
    return listening


def _report(text: str, level: str = "info") -> None:
    """Write a line to stderr, as JSON where REGULARS_LOG_FORMAT asks for it; `serving.logs` imports too much."""
    is_json = os.environ.get("REGULARS_LOG_FORMAT", "" if sys.stderr.isatty() else "json").lower() == "json"
    fields = {"timestamp": datetime.now(UTC).isoformat(), "level": level, "logger": "regulars.server", "event": text}
    line = json.dumps(fields) if is_json else text
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> None:
    """Run the supervisor, as `build_command` starts it."""
    parser = argparse.ArgumentParser(prog="python -m serving.server", description="Serve one shop home.")
    parser.add_argument("--working-dir", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--companion", default="", help="a command to run beside the workers")
    options = parser.parse_args()
    try:
        listening = listen(options.host, options.port)
    except OSError as error:
        sys.exit(f"cannot listen on {options.host}, port {options.port}: {error.strerror}")
    os.chdir(options.working_dir)
    counts_folder = Path(os.environ["BENTOML_HOME"]) / "prometheus_multiproc_dir"
    shutil.rmtree(counts_folder, ignore_errors=True)
    counts_folder.mkdir(parents=True)
    workers = int(os.environ.get("REGULARS_WORKERS", "1"))
    supervisor = Supervisor(listening, workers, counts_folder, shlex.split(options.companion))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    _report(f"regulars serves {options.working_dir} on http://{options.host}:{options.port}")
    supervisor.run()


if __name__ == "__main__":
    main()
