"""Answer benchmark: requests a second and their latency over HTTP, as ratios to a no-op through the same middleware.

One server process answers for a home with a finished nightly run, given by `--home`; a load generator in this process
keeps `--connections` connections busy. The no-op and each question are measured in turns, round by round, so that
other work on the machine disturbs both alike. `--json` writes one JSON object instead of the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvloop

from customers.people import lookup
from customers.scores import score_store
from customers.security import api_keys
from customers.shop import settings
from customers.shop.settings import Shop
from serving import server

QUESTIONS = ("recommendations", "offers", "churn", "next-purchase", "value", "restock")
SCORES = ("churn", "next-purchase", "value")
BULK_CUSTOMERS = 1_000
AIM_RATIO, AIM_P99_RATIO, AIM_P99_MS = 0.5, 2.0, 25.0
AIM_BULK_SCORES, AIM_BULK_LISTS = 20_000, 5_000
AIM_WORKER_MB = 300


@dataclass(frozen=True)
class Load:
    """What one burst of requests gave: requests a second, and latencies in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Result:
    """One row: a question, its figure, that of the no-op in the same rounds, and whether the aim is met."""

    name: str
    figure: str
    reference: str
    ratio: float | None
    aim: str
    met: bool


class LoadGenerator:
    """Keep-alive connections to one server, each with at most one request under way."""

    def __init__(self, port: int, connections: int) -> None:
        self.port = port
        self.connections = connections

    def burst(self, requests: Sequence[bytes], seconds: float, rate: float | None = None) -> Load:
        """Send requests for some seconds, in a random order: as fast as answers come, or at `rate` a second."""
        return uvloop.run(self._burst(requests, seconds, rate))

    async def _burst(self, requests: Sequence[bytes], seconds: float, rate: float | None) -> Load:
        latencies: list[float] = []
        errors: list[int] = []
        loop = asyncio.get_running_loop()
        started = loop.time()
        due = iter(range(10**9))

        async def work() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
            while (now := loop.time()) < started + seconds:
                begun = now
                if rate is not None:
                    begun = started + next(due) / rate
                    if begun > now:
                        await asyncio.sleep(begun - now)
                writer.write(random.choice(requests))
                status = await _read_response(reader)
                latencies.append(loop.time() - begun)
                if status != 200:
                    errors.append(status)
            writer.close()

        await asyncio.gather(*(work() for _ in range(self.connections)))
        elapsed = loop.time() - started
        ordered = sorted(latencies)
        return Load(
            len(ordered) / elapsed,
            statistics.median(ordered) * 1000,
            ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
            len(errors),
        )


async def _read_response(reader: asyncio.StreamReader) -> int:
    """Read one response with a Content-Length; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    start = lower.index(b"content-length:") + 15
    length = int(lower[start : lower.index(b"\r", start)])
    if length:
        await reader.readexactly(length)
    return int(head[9:12])


@dataclass(frozen=True)
class RunningServer:
    """A server process, its port and an API key."""

    process: subprocess.Popen[bytes]
    port: int
    key: str
    customer_ids: list[str]
    home: Path
    night_as_of: str

    def get(self, question: str, customer_id: str) -> bytes:
        """The bytes of a GET about one customer."""
        return self._request("GET", f"/v1/customers/{customer_id}/{question}", b"")

    def post(self, question: str, customer_ids: Sequence[str]) -> bytes:
        """The bytes of a POST about many customers."""
        return self._request("POST", f"/v1/{question}", json.dumps({"customer_ids": customer_ids}).encode())

    def post_records(self, kind: str, records: Any) -> bytes:
        """The bytes of a POST of records."""
        return self._request("POST", f"/v1/{kind}", json.dumps(records).encode())

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def memory_mb(self) -> float:
        """The memory that the largest process of the server has for itself, in MB; mapped files are not counted."""
        sizes = [_private_kb(pid) for pid in _process_group(self.process.pid)]
        return max(sizes, default=0) / 1024


def _process_group(group: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    yield int(entry.name)
            except ProcessLookupError:
                continue


def _private_kb(pid: int) -> int:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name] = int(value)
    # Clean pages are those of libraries and mapped files, which other workers share and the system may drop.
    return fields["Private_Dirty:"]


@contextmanager
def running_server(source_home: Path, customer_ids: list[str] | None = None) -> Iterator[RunningServer]:
    """Serve a copy of this home by one worker, with the no-op route added; customers: given, or those with scores."""
    with TemporaryDirectory(prefix="regulars-answers-") as folder:
        home = Path(folder) / "home"
        shutil.copytree(source_home, home)
        shop = settings.open_shop(home)
        run_scores = score_store.load_run_scores(shop, "churn")
        keys, as_of = run_scores["customer_key"].tolist(), run_scores.attrs["as_of"]
        customer_ids = customer_ids or list(lookup.find_ids(shop, keys).values())
        log_path = Path(folder) / "server.log"
        process, port = _start_worker(shop, log_path)
        try:
            _wait_until_ready(port, process, log_path)
            key = api_keys.create_key(shop, "admin")
            yield RunningServer(process, port, key, customer_ids, home, as_of.isoformat().replace("+00:00", "Z"))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _start_worker(shop: Shop, log_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A worker as the server's supervisor starts it, with its environment, on a socket of a free port; and the port."""
    counts_folder = shop.home / "bentoml" / "prometheus_multiproc_dir"
    counts_folder.mkdir(parents=True, exist_ok=True)
    environment = server.build_environment(shop) | {"PROMETHEUS_MULTIPROC_DIR": str(counts_folder)}
    with server.listen("127.0.0.1", 0) as listening, log_path.open("wb") as log:
        descriptor = listening.fileno()
        command = [sys.executable, str(Path(__file__).with_name("no_op_service.py")), str(descriptor)]
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, pass_fds=[descriptor]
        )
        return process, int(listening.getsockname()[1])


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"the server did not start:\n{log_path.read_text(errors='replace')[-3000:]}")


def measure_reads(generator: LoadGenerator, running: RunningServer, seconds: float, rounds: int) -> list[Result]:
    """Throughput of each read as a share of the no-op's, and its p99 at half of that load."""
    no_op = [running.get("nothing", name) for name in running.customer_ids]
    results = []
    for question in QUESTIONS:
        requests = [running.get(question, name) for name in running.customer_ids]
        generator.burst(requests, min(seconds, 1.0))  # the first answers load what later ones share
        pairs = [(generator.burst(requests, seconds), generator.burst(no_op, seconds)) for _ in range(rounds)]
        results += _throughput_results(f"GET {question}", pairs)
        half = statistics.median(ours.per_second for ours, _ in pairs) / 2
        pairs = [
            (generator.burst(requests, seconds, half), generator.burst(no_op, seconds, half)) for _ in range(rounds)
        ]
        results.append(_latency_result(f"GET {question}", pairs))
        _print_progress(results[-2:])
    return results


def _throughput_results(name: str, pairs: Sequence[tuple[Load, Load]]) -> list[Result]:
    ratio = statistics.median(ours.per_second / reference.per_second for ours, reference in pairs)
    ours, reference = (statistics.median(pair[side].per_second for pair in pairs) for side in (0, 1))
    errors = sum(load.errors for pair in pairs for load in pair)
    return [
        Result(
            name, f"{ours:,.0f}/s", f"no-op {reference:,.0f}/s", ratio, f">= {AIM_RATIO}x",
            ratio >= AIM_RATIO and not errors,
        )
    ]  # fmt: skip


def _latency_result(name: str, pairs: Sequence[tuple[Load, Load]]) -> Result:
    ratio = statistics.median(ours.p99_ms / reference.p99_ms for ours, reference in pairs)
    ours, reference = (statistics.median(pair[side].p99_ms for pair in pairs) for side in (0, 1))
    met = ratio <= AIM_P99_RATIO and ours <= AIM_P99_MS
    aim = f"<= {AIM_P99_RATIO}x, {AIM_P99_MS:g} ms"
    return Result(f"{name}, p99 at half load", f"{ours:.1f} ms", f"no-op {reference:.1f} ms", ratio, aim, met)


def measure_bulk(running: RunningServer, seconds: float, rounds: int) -> list[Result]:
    """Customers a second of each question, at BULK_CUSTOMERS a request over two connections."""
    generator = LoadGenerator(running.port, 2)
    results = []
    for question in QUESTIONS:
        shuffled = [random.sample(running.customer_ids, len(running.customer_ids)) for _ in range(4)]
        requests = [running.post(question, names[:BULK_CUSTOMERS]) for names in shuffled]
        generator.burst(requests, min(seconds, 1.0))
        loads = [generator.burst(requests, seconds) for _ in range(rounds)]
        figure = statistics.median(load.per_second for load in loads) * min(BULK_CUSTOMERS, len(running.customer_ids))
        aim = AIM_BULK_SCORES if question in SCORES else AIM_BULK_LISTS
        met = figure >= aim and not any(load.errors for load in loads)
        results.append(Result(f"POST {question}", f"{figure:,.0f} customers/s", "-", None, f">= {aim:,}/s", met))
        _print_progress(results[-1:])
    return results


def measure_memory(running: RunningServer) -> list[Result]:
    """The private memory of the worker after all of these requests."""
    size = running.memory_mb()
    return [Result("memory of a worker", f"{size:,.0f} MB", "-", None, f"<= {AIM_WORKER_MB} MB", size <= AIM_WORKER_MB)]


def format_table(results: Sequence[Result]) -> str:
    """The results as a text table."""
    head = ("what", "figure", "against", "ratio", "aim", "")
    rows = [
        (row.name, row.figure, row.reference, "" if row.ratio is None else f"{row.ratio:.2f}", row.aim,
         "met" if row.met else "missed")
        for row in results
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def _print_progress(results: Sequence[Result]) -> None:
    for row in results:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        sys.stderr.write(f"{row.name}: {row.figure} {row.reference} {ratio}\n")


def main() -> None:
    """Measure and print."""
    arguments = _parse_arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with running_server(arguments.home) as running:
        generator = LoadGenerator(running.port, arguments.connections)
        results = measure_reads(generator, running, arguments.seconds, arguments.rounds)
        results += measure_bulk(running, arguments.seconds, arguments.rounds)
        results += measure_memory(running)
    text = json.dumps([asdict(row) for row in results], indent=2) if arguments.json else format_table(results)
    sys.stdout.write(f"{text}\n")


def _parse_arguments() -> Any:
    parser = argparse.ArgumentParser(description="Requests a second and latency over HTTP, against a no-op.")
    parser.add_argument("--home", type=Path, required=True, help="a home with a finished nightly run; it is copied")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="the length of each burst")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
