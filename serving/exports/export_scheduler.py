"""The part of export jobs that a worker does: it starts the process that carries them out, and calls webhooks."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

from customers.database import shop_lock
from customers.shop.settings import Shop
from serving.exports import export_jobs, export_runner, webhooks
from serving.http import problems

log = logging.getLogger("regulars.exports")

CHECK_SECONDS = 1.0
#: How often old files are looked for.
CLEANING_SECONDS = 3_600.0


class ExportScheduler:
    """Looks for unfinished exports and due webhooks, also those that a killed worker has left."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._process: subprocess.Popen[bytes] | None = None
        self._cleaned_at = float("-inf")

    def start(self) -> None:
        """Look every CHECK_SECONDS, in a thread that ends with the process."""
        threading.Thread(target=self._run, daemon=True, name="exports").start()

    def check(self) -> None:
        """Look once."""
        if time.monotonic() - self._cleaned_at >= CLEANING_SECONDS:
            export_jobs.delete_old_jobs(self.shop, datetime.now(UTC))
            self._cleaned_at = time.monotonic()
        is_running = self._process is not None and self._process.poll() is None
        if (
            not is_running
            and export_runner.find_unfinished(self.shop) is not None
            and shop_lock.is_free(self.shop, export_runner.LOCK_NAME, in_home=True)
        ):
            self._process = self._start_process()
        webhooks.deliver_due(self.shop, datetime.now(UTC))

    def _run(self) -> None:
        while True:
            try:
                self.check()
            except Exception as error:  # the next look may succeed
                log.error("exports cannot be looked after: %s", problems.describe_traceback(error))
            time.sleep(CHECK_SECONDS)

    def _start_process(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "serving.exports.export_runner", str(self.shop.home)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)
