"""A service of the platform as a process: started, asked how it is, stopped, killed, held up."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import tiers
from prometheus_client.parser import text_string_to_metric_families

from conftest import Tenant

STOPPED_WITHIN = 10


@dataclass
class Running:
    """A service, its metrics' port and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> requests.Response | None:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except requests.RequestException:
            return None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ready(self) -> bool:
        assert self.alive, self.log.read_text("utf-8")
        answer = self.get("/healthz")
        return answer is not None and answer.status_code == 200

    def wait_until_up(self) -> None:
        """Wait until it answers, or has ended."""
        tiers.eventually(f"{self.log.stem} is up", lambda: not self.alive or self.ready())

    def waits(self) -> bool:
        """Say whether the service tells that it waits for a server."""
        return self.trouble() is not None

    def trouble(self) -> str | None:
        """Return what the service tells that it waits for."""
        assert self.alive, self.log.read_text("utf-8")
        answer = self.get("/healthz")
        return None if answer is None else answer.json()["waiting_for"]

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, summed over the samples that have these labels; 0 when there is none."""
        answer = self.get("/metrics")
        assert answer is not None, self.log.read_text("utf-8")
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def memory(self) -> int:
        """Return the bytes of memory that it has at the moment."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def events(self) -> list[dict[str, Any]]:
        """Return the log, every line of which must be one JSON object."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]

    def count(self, event: str, **fields: Any) -> int:
        """Return how many lines of the log tell this event with these fields."""
        return sum(found["event"] == event and fields.items() <= found.items() for found in self.events())

    def stop(self) -> None:
        """Ask it to stop; it must, in time and well."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOPPED_WITHIN) == 0, self.log.read_text("utf-8")
        tiers.assert_alone(self.process)

    def kill(self) -> None:
        """Kill it (-9) if it is still there, also while it is held up."""
        if self.alive:
            self.process.kill()
        self.process.wait(10)


def launch(tenant: Tenant, *arguments: str, log: Path, extra: Mapping[str, str] | None = None) -> Running:
    """Start a service of the tenant on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"METEO_METRICS_PORT": str(port), **(extra or {})}
    return Running(tiers.start(tenant, *arguments, extra=environment, log=log), port, log)


def start(tenant: Tenant, *arguments: str, log: Path, extra: Mapping[str, str] | None = None) -> Running:
    """Start a service of the tenant on a free port and wait until it answers there."""
    running = launch(tenant, *arguments, log=log, extra=extra)
    running.wait_until_up()
    return running
