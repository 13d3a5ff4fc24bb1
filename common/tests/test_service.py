"""What a service tells at its port: it is healthy while its loop comes round, and ready while it waits for nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from meteo_common.service import Service


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Service("test", ("127.0.0.1", port), stale_after=0.5)
    yield made, f"http://127.0.0.1:{port}"
    made.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def statuses(url: str) -> tuple[int, int]:
    return requests.get(f"{url}/healthz", timeout=5).status_code, requests.get(f"{url}/readyz", timeout=5).status_code


def test_one_that_waits_is_healthy_and_not_ready(service: tuple[Service, str]) -> None:
    running, url = service
    running.beat()
    assert statuses(url) == (200, 200)
    running.beat("Kafka is away.")
    assert statuses(url) == (200, 503)
    assert requests.get(f"{url}/readyz", timeout=5).json()["waiting_for"] == "Kafka is away."
    running.beat()
    assert statuses(url) == (200, 200)


def test_one_whose_loop_hangs_is_neither(service: tuple[Service, str]) -> None:
    running, url = service
    running.beat()
    running.stopping.wait(0.7)
    assert statuses(url) == (503, 503)


SIGNALLED_AMID_A_LINE = """
import os, signal, sys, time
import structlog
from meteo_common import service

class Output:
    def __init__(self, seconds):
        self.seconds, self.lines = seconds, []
    def write(self, text):
        self.lines.append(text)
        if len(self.lines) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(self.seconds)  # the handler runs here, and the log's lock is held
    def flush(self):
        pass

seconds, service.STOP_WITHIN = map(float, sys.argv[1:])
structlog.configure(logger_factory=structlog.PrintLoggerFactory(Output(seconds)))
running = service.Service("test", None)
structlog.get_logger().info("a line")
sys.exit(0 if running.stopping.wait(10) else "the service does not stop")
"""


@pytest.mark.parametrize(("line_takes", "stop_within"), [("0.2", "8"), ("60", "0.5")])
def test_a_signal_amid_a_line_of_the_log_stops_it(line_takes: str, stop_within: str) -> None:
    """The second line takes longer than a stop may."""
    command = [sys.executable, "-c", SIGNALLED_AMID_A_LINE, line_takes, stop_within]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr
