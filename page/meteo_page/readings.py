"""Readings bounded in time: a server that is away, or that hangs, delays nobody who asks about the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from meteo_common.errors import MeteoError

log = structlog.get_logger()

T = TypeVar("T")

SECONDS = 5.0
"""A reading takes some milliseconds, and connecting to Kafka 0.3 s; the watch reads every 15 s."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was read, or a sentence why nothing was."""

    value: T | None = None
    trouble: str | None = None


class Reader(Generic[T]):
    """Reads one server in a thread of its own; one that still hangs is not asked again, only waited for."""

    def __init__(self, name: str, read: Callable[..., T]) -> None:
        self.name = name
        self._read = read
        self._thread: threading.Thread | None = None
        self._reading: Reading[T] = Reading()

    def begin(self, *arguments: Any) -> None:
        """Start to read with these arguments, unless the reading before has not ended."""
        if self._thread is None or not self._thread.is_alive():
            # A daemon: one that hangs must not keep the process from its end.
            self._thread = threading.Thread(target=self._run, args=arguments, name=f"read-{self.name}", daemon=True)
            self._thread.start()

    def result(self, end: float) -> Reading[T]:
        """Return what was read, waiting until `end` (by the monotonic clock) at most."""
        if self._thread is None:
            return Reading(trouble=f"{self.name} has not been read yet.")
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            return Reading(trouble=f"{self.name} does not answer in time; ./meteo doctor looks at it.")
        return self._reading

    def _run(self, *arguments: Any) -> None:
        try:
            self._reading = Reading(self._read(*arguments))
        except MeteoError as error:
            self._reading = Reading(trouble=str(error))
        except Exception as error:
            # Whatever a client library raises about its server: the page says so and lives on.
            log.exception("a reading failed", reader=self.name)
            self._reading = Reading(trouble=f"{self.name} cannot be read ({type(error).__name__}); ./meteo logs page.")
