"""A whole stack that is watched: services that simulate weather, Prometheus, Alertmanager, and a webhook that gets its
alerts. Everything is hasty, so that an alert of minutes comes within seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import requests
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from conftest import Tenant
from meteo_common.settings import Settings, load_settings, project_root, stack_directory

STACK = "watched"
# No port of it may meet one of the other stacks' that tests run; deployment/test_description.py proves it.
PORT_OFFSET = 1800
WEBHOOK_PORT = PORT_OFFSET + 8099
PROGRAMS = Path(sys.executable).parent
PATIENCE = 0.06
"""A minute becomes 3.6 s, a little more than a scrape: no alert is quicker than what it looks at."""
CALM_SECONDS = 2 * 3600 * PATIENCE
KEY = "0123456789abcdef0123456789abcdef"
PRODUCER = {
    "PRODUCE_EVERY": "10s",
    # An account of a provider, which is never asked: the simulation does not fail.
    "FALLBACK": "openweather",
    "OPENWEATHER_API_KEY": KEY,
    "OPENWEATHER_BUDGET": "10000/1d",
}
VARIABLES = {
    "producer_source": "simulation",
    "export_every": "10s",
    "aggregate_every": "10s",
    "page_arguments": ["page", "--every", "4s"],
    "prometheus_patience": PATIENCE,
    "prometheus_scrape_interval": "3s",
    "prometheus_scrape_timeout": "3s",
    "prometheus_slow_scrape_interval": "10s",
    "prometheus_slow_scrape_timeout": "10s",
    "alertmanager_group_wait": "1s",
    "alertmanager_group_interval": "1s",
    "alertmanager_webhook_url": f"http://127.0.0.1:{WEBHOOK_PORT}/alerts",
}


@dataclass
class Webhook:
    """What was sent to it, in order."""

    _got: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, request: Request) -> Response:
        """Take a message of Alertmanager."""
        with self._lock:
            self._got += (request.get_json() or {})["alerts"]
        return Response("", 200)

    def alerts(self, name: str, status: str, **labels: str) -> list[dict[str, Any]]:
        """Return the alerts of this name and status (firing, resolved) that were sent."""
        with self._lock:
            return [
                alert
                for alert in self._got
                if alert["status"] == status and {**labels, "alertname": name}.items() <= alert["labels"].items()
            ]

    def forget(self) -> None:
        """Forget what was sent."""
        with self._lock:
            self._got.clear()


@dataclass(frozen=True)
class Watched:
    """The stack: its directory, its settings, its webhook, and what Prometheus and Alertmanager say."""

    directory: Path
    settings: Settings
    webhook: Webhook

    @property
    def tenant(self) -> Tenant:
        """The stack's own database, topic and paths, and its producer's state."""
        state = {"meteo_state_dir": self.directory / "data" / "producer"}
        account = {"openweather_api_key": SecretStr(KEY), "openweather_budget": PRODUCER["OPENWEATHER_BUDGET"]}
        return Tenant(self.settings.model_copy(update=state | account))

    def meteo(self, *arguments: str) -> str:
        """Run the command line for this stack and return what it printed."""
        return self.tenant.meteo("--stack", STACK, *arguments)

    def stop(self, server: str) -> None:
        """Stop a server or service as an operator does, and wait for its end."""
        self._supervisorctl("stop", server)

    def start(self, server: str) -> None:
        """Start a server or service; it may not answer yet."""
        self._supervisorctl("start", server)

    def send_signal(self, server: str, number: signal.Signals) -> None:
        """Send a signal to the process of a server or service."""
        os.kill(int(self._supervisorctl("pid", server)), number)

    def address(self, server: str, port: str = "http") -> str:
        """Return where a server of the stack listens."""
        services = json.loads((self.directory / "stack.json").read_text("utf-8"))["services"]
        return f"http://127.0.0.1:{services[server]['ports'][port]}"

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that an expression has now."""
        found = self.prometheus("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def prometheus(self, call: str, **parameters: str) -> Any:
        """Return the data of a call of Prometheus' API."""
        answer = requests.get(f"{self.address('prometheus')}/api/v1/{call}", params=parameters, timeout=10)
        answer.raise_for_status()
        return answer.json()["data"]

    def firing(self) -> set[str]:
        """Return the names of the alerts that stand; not of those about the machine, which has other users."""
        return {labels["alertname"] for labels, _ in self.query('ALERTS{alertstate="firing", job!="host"}')}

    def wait_until_calm(self) -> None:
        """Wait until no alert stands: what is counted within an hour counts for 216 s here."""
        end = time.monotonic() + CALM_SECONDS
        while standing := self.firing():
            assert time.monotonic() < end, f"{', '.join(sorted(standing))} still stand after {CALM_SECONDS:.0f} s"
            time.sleep(1)

    def inhibited(self) -> set[str]:
        """Return the names of the alerts that Alertmanager holds back because another explains them."""
        answer = requests.get(f"{self.address('alertmanager')}/api/v2/alerts", timeout=10)
        return {alert["labels"]["alertname"] for alert in answer.json() if alert["status"]["inhibitedBy"]}

    def _supervisorctl(self, *arguments: str) -> str:
        command = [PROGRAMS / "supervisorctl", "-c", self.directory / "run" / "supervisor.conf", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def eventually(seen: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Return what `seen` returns as soon as that is true; fails after so many seconds, saying what was waited for."""
    end = time.monotonic() + seconds
    while True:
        last: Any = None
        try:
            if last := seen():
                return last
        except requests.RequestException as error:
            last = error
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s; last seen: {last}"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def watched(lasting: ExitStack) -> Watched:
    """The stack with its services and monitoring."""
    return lasting.enter_context(_watched())


@contextmanager
def _watched() -> Iterator[Watched]:
    """Make it anew; it is gone afterwards, unless METEO_KEEP_TEST_STACK=1 keeps it as it is."""
    keep = os.environ.get("METEO_KEEP_TEST_STACK") == "1"
    webhook = Webhook()
    server = HTTPServer(host="127.0.0.1", port=WEBHOOK_PORT)
    server.expect_request("/alerts").respond_with_handler(webhook.receive)
    server.start()
    try:
        with patch.dict(os.environ, {"METEO_STACK": STACK, "METEO_PORT_OFFSET": str(PORT_OFFSET)}):
            for name in Settings.model_fields:
                os.environ.pop(name.upper(), None)
            os.environ.update(PRODUCER)
            if not keep:
                _playbook("down.yml", purge=True)
            _playbook("site.yml", port_offset=PORT_OFFSET, **VARIABLES)
            for name in PRODUCER:
                del os.environ[name]
            stack = Watched(stack_directory(), load_settings(), webhook)
        yield stack
    finally:
        if not keep:
            _playbook("down.yml", purge=True)
        server.stop()


def _playbook(name: str, **variables: object) -> None:
    ansible = project_root() / "ansible"
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ansible / "ansible.cfg"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{PROGRAMS}:{os.environ.get('PATH', '')}",
    }
    command = ["-i", str(ansible / "inventory" / "embedded.ini"), str(ansible / name)]
    ran = subprocess.run(
        [PROGRAMS / "ansible-playbook", *command, "-e", json.dumps({"stack_name": STACK, **variables})],
        cwd=ansible,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
