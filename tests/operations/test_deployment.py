"""Image, compose file and systemd units: what they promise holds, and their commands run against real servers."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from customers.shop.settings import SETTING_NAMES

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("api", "worker", "setup", "mlflow")
UNITS = sorted((ROOT / "docs" / "operations" / "systemd").iterdir())
BIN = Path(sys.executable).parent
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")


# What the files promise -------------------------------------------------------------------------------------


def test_every_service_starts_again_has_a_health_check_and_waits_for_what_it_needs() -> None:
    assert set(SERVICES) == {"api", "worker", "setup", "postgres", "redis", "mlflow"}
    for name, service in SERVICES.items():
        if name != "setup":
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"]
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == (
                "service_completed_successfully" if other == "setup" else "service_healthy"
            )
    assert set(SERVICES["worker"]["depends_on"]) == {"setup", "redis", "mlflow"}


def test_our_containers_have_no_rights_they_do_not_need() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len(published) == 1


def test_what_is_kept_lies_in_volumes() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"]) == {"home", "postgres", "redis", "mlflow"}


def test_no_secret_is_written_down() -> None:
    """A password comes from a variable without a default, and its absence stops the start with a message."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    needed = {name for name, default in VARIABLE.findall(text) if "PASSWORD" in name}
    assert needed == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert len(re.findall(r"\$\{\w*PASSWORD:\?set \w+ in .env\}", text)) == len(re.findall(r"\$\{\w*PASSWORD", text))
    assert not re.search(r"REGULARS_KEY\b|PASSWORD: \w", text)
    assert "*" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_only_settings_that_exist_are_given() -> None:
    only_variables = {"HOME", "ENGINE_MEMORY", "LOG_FORMAT", "LOG_LEVEL", "WORKERS", "PORT", "WEBHOOK_HOSTS"}
    allowed = {f"REGULARS_{name.upper()}" for name in SETTING_NAMES} | {f"REGULARS_{name}" for name in only_variables}
    texts = [ROOT / "compose.yaml", ROOT / "Dockerfile", *UNITS]
    named = {name for path in texts for name in re.findall(r"\bREGULARS_\w+", path.read_text(encoding="utf-8"))}
    assert named - allowed == set()


def test_the_image_runs_as_a_user_of_its_own_and_is_pinned_by_the_lock() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert [text for word, text in instructions if word == "USER"] == ["regulars"]
    words = [word for word, _ in instructions]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert words.count("FROM") == 2
    installs = [text for word, text in instructions if word == "RUN" and "uv pip install" in text]
    assert all("--constraint requirements.lock" in text or "--no-deps" in text for text in installs)
    assert any("/readyz" in text for word, text in instructions if word in ("HEALTHCHECK", "CMD"))
    copied = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert {"customers", "features", "models", "training", "serving", "pipelines"} <= copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    """All units beside it, as one names the other; with the command of this environment, since systemd looks for it."""
    analyze = shutil.which("systemd-analyze") or pytest.skip("needs systemd")
    for each in UNITS:
        text = each.read_text(encoding="utf-8").replace("/opt/regulars/.venv/bin", str(BIN))
        (tmp_path / each.name).write_text(text, encoding="utf-8")
    verified = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize("unit", [path for path in UNITS if path.suffix == ".service"], ids=lambda path: path.name)
def test_a_unit_is_confined(unit: Path) -> None:
    settings = dict(line.split("=", 1) for line in unit.read_text(encoding="utf-8").splitlines() if "=" in line)
    assert settings["User"] == "regulars"
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "PrivateDevices", "RestrictSUIDSGID"):
        assert settings[name] == "true"
    assert (settings["ProtectSystem"], settings["CapabilityBoundingSet"]) == ("strict", "")


# The commands, against real servers ---------------------------------------------------------------------------


class Deployment:
    """Runs services of the compose file as processes of this machine, with addresses of this machine."""

    def __init__(self, folder: Path, variables: dict[str, str], replacements: dict[str, str]) -> None:
        self.folder = folder
        self.variables = variables
        self.replacements = replacements

    def substitute(self, text: str) -> str:
        """As compose does: variables with their defaults, and two dollars for one; then our addresses."""
        text = VARIABLE.sub(lambda match: self.variables.get(match[1], match[2] or ""), text).replace("$$", "$")
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        return text

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.substitute(str(value)) for key, value in SERVICES[name].get("environment", {}).items()}
        given = {key: value for key, value in given.items() if value}
        home = {"REGULARS_HOME": str(self.folder / "home"), "REGULARS_LOG_FORMAT": "json"}
        return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.folder), "PYTHONPATH": str(ROOT)} | home | given

    def command(self, name: str) -> list[str]:
        service = SERVICES[name]
        entry = service.get("entrypoint", ["regulars"])
        return [self.substitute(str(word)) for word in [*entry, *service["command"]]]

    def is_healthy(self, name: str) -> bool:
        kind, *test = [self.substitute(word) for word in SERVICES[name]["healthcheck"]["test"]]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        environment = self.environment(name)
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode == 0

    @contextmanager
    def running(self, name: str, seconds: int = 120) -> Iterator[subprocess.Popen[bytes]]:
        """A service that has become healthy; it must end within ten seconds when it is told to."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(name), env=self.environment(name), cwd=self.folder, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + seconds
            interval = int(SERVICES[name]["healthcheck"]["interval"].removesuffix("s"))
            time.sleep(interval / 10)  # as in a container, the first check does not come at once
            while not self.is_healthy(name):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(interval / 10)
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command with the settings of the worker."""
        return subprocess.run(
            command, env=self.environment("worker"), cwd=self.folder, capture_output=True, text=True, check=True,
            timeout=600,
        )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def deployment(
    new_database: Callable[..., str], small_shop_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """Every service of the compose file, as processes; the small grocer's records are loaded and a night has run."""
    if not shutil.which("redis-server") or not shutil.which("pg_isready"):
        pytest.skip("needs redis-server and pg_isready; apt-get install redis-server postgresql-client")
    folder = tmp_path_factory.mktemp("deployment")
    (folder / "redis").mkdir()
    shop_url, mlflow_url = new_database(), new_database()
    postgres_port = shop_url.split(":")[-1].split("/")[0]
    ports = {name: str(free_port()) for name in ("redis", "mlflow", "api")}
    variables = {"POSTGRES_PASSWORD": "unused", "REDIS_PASSWORD": "s3cret", "SHOP_TIMEZONE": "America/New_York"}
    variables |= {"SHOP_CURRENCY": "USD", "REGULARS_WORKERS": "1"}
    replacements = {
        "regulars:unused@postgres:5432/regulars": f"{shop_url.partition('//')[2]}",
        "regulars:unused@postgres:5432/mlflow": f"{mlflow_url.partition('//')[2]}",
        "@redis:6379": f"@127.0.0.1:{ports['redis']}",
        "exec redis-server -": f"exec redis-server - --port {ports['redis']} --bind 127.0.0.1 --dir {folder / 'redis'}",
        "redis-cli ping": f"redis-cli -p {ports['redis']} ping",
        "mlflow:5000": f"127.0.0.1:{ports['mlflow']}",
        "127.0.0.1:5000": f"127.0.0.1:{ports['mlflow']}",
        "/var/lib/mlflow": str(folder / "mlflow"),
        "/var/lib/regulars": str(folder / "home"),
        "127.0.0.1:3000": f"127.0.0.1:{ports['api']}",
    }
    made = Deployment(folder, variables, replacements)
    made.ports, made.postgres_port = ports, postgres_port  # type: ignore[attr-defined]
    commands = {
        "mlflow": lambda words: [ports["mlflow"] if word == "5000" else word for word in words],
        "api": lambda words: [*words, "--port", ports["api"]],
    }
    plain = made.command
    made.command = lambda name: commands.get(name, list)(plain(name))  # type: ignore[method-assign]
    with ExitStack() as stack:
        stack.enter_context(made.running("redis"))
        stack.enter_context(made.running("mlflow"))
        for _ in range(2):  # a second start of everything makes no second home
            subprocess.run(made.command("setup"), env=made.environment("setup"), check=True, cwd=folder)
        for kind in ("customers", "products", "transactions", "offers", "interactions", "consents"):
            made.run("regulars", "load", kind, str(small_shop_files / f"{kind}.csv"))
        summary = made.run("regulars", "run", "--only", "churn,timing", "--json")
        key = made.run("regulars", "keys", "add", "admin").stdout.split()[-1]
        stack.enter_context(made.running("api"))
        yield SimpleNamespace(files=made, folder=folder, key=key, summary=summary, ports=ports)


@pytest.mark.acceptance
def test_the_night_ran_on_the_servers_of_the_compose_file(deployment: SimpleNamespace) -> None:
    import json

    assert json.loads(deployment.summary.stdout)["models"]["churn"]["promoted"]
    home = deployment.folder / "home"
    assert not (home / "shop.db").exists()
    assert not list(home.rglob("online.db"))
    assert not (home / "mlflow").exists()
    assert list((deployment.folder / "mlflow").rglob("manifest.json"))
    lines = [json.loads(line) for line in deployment.summary.stderr.splitlines() if line.startswith("{")]
    assert {"regulars.command"} <= {line["logger"] for line in lines}


@pytest.mark.acceptance
def test_the_server_answers_and_its_health_check_holds(deployment: SimpleNamespace) -> None:
    import httpx

    address = f"http://127.0.0.1:{deployment.ports['api']}"
    headers = {"Authorization": f"Bearer {deployment.key}"}
    answer = httpx.post(f"{address}/v1/churn", json={"customer_ids": ["c003"]}, headers=headers, timeout=30).json()
    assert answer["results"][0]["known"]
    page = httpx.get(f"{address}/metrics").text
    assert 'regulars_source_readable{source="database"} 1.0' in page
    assert 'regulars_champion_info{model="churn",version="1"} 1.0' in page
    assert deployment.files.is_healthy("api")
    assert "s3cret" not in (deployment.folder / "api.log").read_text()


@pytest.mark.acceptance
def test_the_worker_waits_for_the_night_and_reports_its_health(deployment: SimpleNamespace) -> None:
    assert not deployment.files.is_healthy("worker")
    with deployment.files.running("worker"):
        pass


@pytest.mark.acceptance
def test_postgresql_is_checked_by_the_command_of_the_compose_file(deployment: SimpleNamespace) -> None:
    command = [*SERVICES["postgres"]["healthcheck"]["test"][1:], "--port", deployment.files.postgres_port]
    assert subprocess.run(command, check=False).returncode == 0
    assert subprocess.run([*command[:-1], str(free_port())], check=False).returncode != 0


@pytest.mark.acceptance
def test_redis_refuses_who_has_no_password(deployment: SimpleNamespace) -> None:
    from redis import AuthenticationError, Redis

    with pytest.raises(AuthenticationError), Redis(port=int(deployment.ports["redis"])) as client:
        client.ping()
