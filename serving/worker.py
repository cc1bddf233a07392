"""A worker process of the server: answers requests on the socket that the supervisor listens on."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from serving.server import GRACE_SECONDS

if TYPE_CHECKING:
    from serving.runtime import ServerRuntime

log = logging.getLogger("regulars.worker")

#: Seconds that an idle connection stays open.
KEEP_ALIVE_SECONDS = 30
_PARENT_CHECK_SECONDS = 1.0
_PREPARE_AFTER_SECONDS = 5.0
_STORE_CHECK_SECONDS = 5.0
#: Python's own 5 ms would let a request wait for every thread that scores customers meanwhile.
_SWITCH_SECONDS = 0.0005


def main() -> None:
    """Serve on the listening socket whose file descriptor is the only argument, until SIGTERM or SIGINT."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    sys.setswitchinterval(_SWITCH_SECONDS)
    threading.Thread(target=_stop_with_parent, args=(os.getppid(),), daemon=True).start()
    import uvicorn

    from serving import runtime
    from serving.exports.export_scheduler import ExportScheduler
    from serving.lookup import answers
    from serving.service import build_app

    # A worker without requests must notice promotions too.
    server_runtime = runtime.get_runtime()
    server_runtime.champions.watch(runtime.MODEL_NAMES)
    answers.get_outage_answers(server_runtime).start()
    ExportScheduler(server_runtime.shop).start()
    threading.Thread(target=_watch_online_store, args=(server_runtime,), daemon=True).start()
    threading.Thread(target=_prepare_refresh, args=(server_runtime.shop.timezone,), daemon=True).start()
    config = uvicorn.Config(
        build_app(),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(GRACE_SECONDS),
    )
    uvicorn.Server(config).run(sockets=[listening])


def _watch_online_store(server_runtime: ServerRuntime) -> None:
    """Have the online store filled again once it has lost its features."""
    from serving.http import problems
    from serving.online_refill import OnlineRefill

    refill = OnlineRefill(server_runtime)
    while True:
        time.sleep(_STORE_CHECK_SECONDS)
        try:
            refill.check()
        except Exception as error:  # the next look may succeed
            log.error("the online store cannot be looked at: %s", problems.describe_traceback(error))


def _prepare_refresh(timezone: str) -> None:
    """Load what the first sale needs while questions are answered already."""
    time.sleep(_PREPARE_AFTER_SECONDS)
    from features.snapshots import real_time

    real_time.prepare(timezone)


def _stop_with_parent(parent: int) -> None:
    """Stop when the supervisor is gone: nothing would restart this worker, or stop it."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
