"""The supervisor: it imports nothing heavy, starts again what dies, and lets connections wait meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest


def test_the_supervisor_imports_nothing_heavy() -> None:
    """It lives as long as the shop serves: an interpreter and a socket, and no library beside them."""
    code = (
        "import sys, serving.server\n"
        "floors = ('customers', 'features', 'models', 'serving')\n"
        "ours = {name for name in sys.modules if name.split('.')[0] in floors}\n"
        "heavy = {'numpy', 'pandas', 'sqlalchemy', 'bentoml', 'fastapi', 'uvicorn', 'duckdb', 'pydantic'}\n"
        "sys.exit(str((ours, heavy & set(sys.modules))) if ours != {'serving', 'serving.server'} "
        "or heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_worker_imports_neither_feast_nor_ibis_nor_scikit_learn(trained_home: Path) -> None:
    code = (
        "import sys, serving.service\n"
        "sys.exit(str({'feast', 'ibis', 'sklearn', 'mlflow', 'torch', 'scipy.optimize'} & set(sys.modules) or 0))"
    )
    environment = os.environ | {"REGULARS_HOME": str(trained_home)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert result.stderr.strip().splitlines()[-1:] == ["0"], result.stderr


@contextmanager
def supervised(folder: Path, code: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A supervisor in a thread, whose workers run this code with the file descriptor of the socket."""
    from serving import server as serving_server

    def start(supervisor: Any, _: Any) -> subprocess.Popen[bytes]:
        descriptor = supervisor.listening.fileno()
        return subprocess.Popen([sys.executable, "-c", code, str(descriptor)], pass_fds=[descriptor])

    monkeypatch.setattr(serving_server.Supervisor, "_start", start)
    monkeypatch.setattr(serving_server, "FIRST_PAUSE_SECONDS", 0.05)
    supervisor = serving_server.Supervisor(serving_server.listen("127.0.0.1", 0), workers, folder)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(20)
    assert not thread.is_alive()


ANSWER_PID = """
import os, socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listening.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


def wait_until_dead(pid: int) -> None:
    """Wait until a killed process runs no longer, though its parent may not have noticed yet."""
    stat = Path(f"/proc/{pid}/stat")
    with suppress(FileNotFoundError, ProcessLookupError):
        while stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.005)


def test_a_killed_worker_is_started_again_and_connections_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with supervised(tmp_path, ANSWER_PID, 1, monkeypatch) as supervisor:
        address = supervisor.listening.getsockname()
        pids = []
        for _ in range(3):
            with socket.create_connection(address, timeout=30) as connection:
                pids.append(int(connection.recv(20)))
            (tmp_path / f"gauge_livesum_{pids[-1]}.db").touch()
            os.kill(pids[-1], signal.SIGKILL)
            wait_until_dead(pids[-1])  # it may accept one more connection, and answer it no longer
        assert len(set(pids)) == 3
        with socket.create_connection(address, timeout=30) as connection:
            assert int(connection.recv(20)) not in pids
    assert not list(tmp_path.glob("gauge_live*"))


def test_a_worker_that_ends_at_once_is_started_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    code = f"open({str(starts)!r}, 'a').write('.')"
    with supervised(tmp_path, code, 1, monkeypatch):
        time.sleep(3)
        assert len(starts.read_text() if starts.exists() else "") < 10
        deadline = time.monotonic() + 60
        while not starts.exists() or len(starts.read_text()) < 2:
            assert time.monotonic() < deadline, "it was not started again"
            time.sleep(0.1)


def test_a_port_in_use_is_refused_in_words(tmp_path: Path) -> None:
    from serving import server as serving_server

    with serving_server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "serving.server", "--working-dir", str(tmp_path), "--host", "127.0.0.1"]
        result = subprocess.run([*command, "--port", str(port)], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in result.stderr
