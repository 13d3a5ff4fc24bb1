"""The watch: reads the pipeline in the background, so that a page or a scrape waits for no server."""

from __future__ import annotations

import threading
import time

import structlog

from meteo_common.settings import Settings
from meteo_page.pipeline import Pipeline, PipelineState

log = structlog.get_logger()

EVERY_SECONDS = 15.0
STALE_SECONDS = 120.0
"""A reading is bounded to 10 s: a state that is this old means that the watch hangs."""


class Watch:
    """Keeps the last state, read every `every` seconds; `begin` starts the thread, `stop` ends it."""

    def __init__(self, settings: Settings, every: float = EVERY_SECONDS) -> None:
        self._every = every
        self._pipeline = Pipeline(settings)
        self._stopping = threading.Event()
        self._read_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.last: PipelineState | None = None

    def begin(self) -> None:
        """Start to read, at once and then again and again."""
        self._thread.start()

    def stop(self) -> None:
        """End after the reading in hand."""
        self._stopping.set()

    @property
    def healthy(self) -> bool:
        """Whether the loop comes round."""
        return time.monotonic() - self._read_at < STALE_SECONDS

    def _run(self) -> None:
        told: tuple[bool, str | None] | None = None
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                state = self._pipeline.read()
            except Exception:  # whatever it is, such as no memory for a thread: the next reading may go well
                log.exception("the pipeline could not be read")
                self._stopping.wait(self._every)
                continue
            self._read_at, self.last = time.monotonic(), state
            verdict = state.verdict
            if told != (verdict.fresh, verdict.hop):
                told = verdict.fresh, verdict.hop
                log.info("state", fresh=verdict.fresh, hop=verdict.hop, sentence=verdict.sentence, why=verdict.why)
            self._stopping.wait(max(0.5, self._every - (time.monotonic() - started)))
        self._pipeline.close()
