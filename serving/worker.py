"""A worker process of the server: answers requests on the socket that the supervisor listens on."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any, cast

from serving.server import GRACE_SECONDS

#: Seconds that an idle connection stays open.
KEEP_ALIVE_SECONDS = 30
_PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Serve on the listening socket whose file descriptor is the only argument, until SIGTERM or SIGINT."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_stop_with_parent, args=(os.getppid(),), daemon=True).start()
    import uvicorn

    from serving import runtime
    from serving.service import Regulars

    # A worker without requests must notice promotions too.
    runtime.get_runtime().champions.watch(runtime.MODEL_NAMES)
    config = uvicorn.Config(
        cast(Any, Regulars).to_asgi(),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(GRACE_SECONDS),
    )
    uvicorn.Server(config).run(sockets=[listening])


def _stop_with_parent(parent: int) -> None:
    """Stop when the supervisor is gone: nothing would restart this worker, or stop it."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
