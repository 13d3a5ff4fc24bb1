"""What every long-running service is: it stops within 10 s of SIGTERM, and tells how it is at /metrics,
/healthz and /readyz.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from meteo_common.errors import UsageError

log = structlog.get_logger()

# A loop that has not come round for this long hangs: the longest single wait in any service is 60 s.
STALE_AFTER = 180.0
# Our promise is 10 s. What is in hand is given this long; then the process ends as a crash would, which every cycle
# is made for, instead of being killed by the supervisor a little later.
STOP_WITHIN = 8.0


class Service:
    """The life of one service process.

    `stopping` is set by SIGTERM or SIGINT; `beat` says that the loop comes round.
    """

    def __init__(self, name: str, listener: tuple[str, int] | None, stale_after: float = STALE_AFTER) -> None:
        self.name = name
        self._stale_after = stale_after
        self.stopping = threading.Event()
        self._last_beat = time.monotonic()
        self._trouble: str | None = None
        self._server = self._serve(listener) if listener else None
        # A signal may come while the main thread holds any lock, such as the log's: its handler must take none. This
        # queue takes none, and the rest is done by a thread.
        self._signals: SimpleQueue[int | None] = SimpleQueue()
        threading.Thread(target=self._stop_when_told, name="signals", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._signals.put(number))

    def beat(self, trouble: str | None = None) -> None:
        """Say that the loop is alive; `trouble` is what it waits for, None when all is well."""
        self._last_beat = time.monotonic()
        self._trouble = trouble

    def wait(self, seconds: float) -> None:
        """Sleep, in steps that keep /healthz content, until the time is over or the service stops."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stopping.wait(min(left, STALE_AFTER / 3)):
            self._last_beat = time.monotonic()

    def facts(self) -> dict[str, Any]:
        """Return what /healthz and /readyz say: healthy is whose loop comes round, ready who also waits for nothing."""
        healthy = time.monotonic() - self._last_beat < self._stale_after
        return {
            "service": self.name,
            "healthy": healthy,
            "ready": healthy and self._trouble is None,
            "waiting_for": self._trouble,
        }

    def close(self) -> None:
        """Stop answering."""
        self._signals.put(None)
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _stop_when_told(self) -> None:
        number = self._signals.get()
        if number is None:
            return
        self.stopping.set()
        last = threading.Timer(STOP_WITHIN, _end)
        last.daemon = True
        last.start()
        log.info("stopping", signal=signal.Signals(number).name)

    def _serve(self, listener: tuple[str, int]) -> ThreadingHTTPServer:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
                elif self.path in {"/healthz", "/readyz"}:
                    facts = service.facts()
                    well = facts["healthy"] if self.path == "/healthz" else facts["ready"]
                    self._answer(200 if well else 503, "application/json", json.dumps(facts).encode())
                else:
                    self._answer(404, "text/plain", b"/metrics, /healthz or /readyz\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """A probe every few seconds is no event."""

        try:
            server = ThreadingHTTPServer(listener, Handler)
        except OSError as error:
            raise UsageError(
                f"Port {listener[1]} for /metrics of {self.name} cannot be opened ({error.strerror}); "
                "set METEO_METRICS_PORT."
            ) from None
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        return server


def _end() -> None:
    """End the process whatever it does, also one whose standard error takes no line any more."""
    words = "stopping in the middle of the work; the next start finishes it"
    telling = threading.Thread(target=log.warning, args=(words,), kwargs={"seconds": STOP_WITHIN}, daemon=True)
    telling.start()
    telling.join(0.5)
    os._exit(0)
