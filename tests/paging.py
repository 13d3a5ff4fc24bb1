"""The page of a tenant as a process, and gates to its servers that can be shut."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import tiers
from running import Running

from conftest import Tenant
from meteo_common.settings import stack_directory

NOTE = "Something is not there, and this says why."
"""A note of the stacks of tests."""
EVERY = "1s"
"""How often the pages of tests read the tiers."""


@dataclass
class Gate:
    """A way to a server: open it lets everything pass, shut it refuses, held it takes a call and never answers."""

    host: str
    server: int
    _listener: socket.socket | None = None
    _connections: list[socket.socket] = field(default_factory=list)
    _held: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def open(self) -> Gate:
        """Let calls pass from here on."""
        self._held.clear()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def hold(self) -> None:
        """Answer nothing any more, neither on old connections nor on new ones."""
        self._held.set()

    def shut(self) -> None:
        """End every connection, and refuse new ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # What waits in accept() is woken by this, not by the close.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((self.host, self.server))
                self._connections += [client, server]
                if self._listener is not listener:  # it was shut meanwhile
                    client.close()
                    server.close()
                    return
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while received := one.recv(65536):
                while self._held.is_set() and one.fileno() >= 0:
                    threading.Event().wait(0.05)
                other.sendall(received)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass
class Page:
    """A running page."""

    service: Running

    def get(self, path: str, **parameters: Any) -> requests.Response:
        """Return an answer, whatever its status."""
        return requests.get(f"{self.url}{path}", params=parameters, timeout=30)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.service.port}"

    def state(self) -> dict[str, Any]:
        """Return what /api/pipeline says now."""
        answer = self.get("/api/pipeline")
        return answer.json() if answer.ok else {"hops": [], "sentence": answer.text}

    def hop(self, name: str) -> dict[str, Any]:
        """Return a hop as it is judged now; empty before the first reading."""
        return next((hop for hop in self.state()["hops"] if hop["name"] == name), {})

    def until(self, what: str, probe: Callable[[dict[str, Any]], Any], seconds: float = 30) -> dict[str, Any]:
        """Wait until the state is as `probe` wants it, and return it."""

        def state() -> dict[str, Any] | None:
            found = self.state()
            return found if found["hops"] and probe(found) else None

        return tiers.eventually(f"{what}; last: {self.state()['sentence']}", state, seconds, 0.3)

    def until_hop(self, name: str, state: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until a hop is in this state, and return the hop."""
        self.until(f"{name} {state}", lambda found: _hop(found, name)["state"] == state, seconds)
        return self.hop(name)


def _hop(state: dict[str, Any], name: str) -> dict[str, Any]:
    return next(hop for hop in state["hops"] if hop["name"] == name)


def start_page(
    tenant: Tenant, log: Path, services: Mapping[str, Running] | None = None, extra: Mapping[str, str] | None = None
) -> Page:
    """Start the tenant's page on a free port; `services` are those of ours that its stack has, besides the servers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    index = stack_index(tenant, services or {})
    environment = {"METEO_PAGE_PORT": str(port), "METEO_STACK_FILE": str(index), **(extra or {})}
    process = tiers.start(tenant, "page", "--every", EVERY, extra=environment, log=log)
    service = Running(process, port, log)
    service.wait_until_up()
    assert service.alive, log.read_text("utf-8")
    return Page(service)


def stack_index(tenant: Tenant, services: Mapping[str, Running]) -> Path:
    """Write the index of a stack that has the test stack's servers and these services; return where."""
    found = json.loads((stack_directory() / "stack.json").read_text("utf-8"))
    for name in ("producer", "consumer", "export", "aggregate", "page"):
        found["services"].pop(name, None)
    for name, service in services.items():
        health = {"http": f"http://127.0.0.1:{service.port}/healthz"}
        found["services"][name] = {"ports": {"metrics": service.port}, "urls": [], "health": health, "log": "-"}
    found["notes"] = [NOTE]
    # Where the services' user may read it.
    assert tenant.settings.meteo_state_dir is not None
    path = tenant.settings.meteo_state_dir / f"stack-{uuid.uuid4().hex[:8]}.json"
    path.write_text(json.dumps(found), "utf-8")
    path.chmod(0o644)
    return path


def simulate(tenant: Tenant, city: str = "Oslo,NO@59.91,10.75") -> None:
    """Send current weather of one poll."""
    tenant.meteo("produce", "--source", "simulation", "--city", city, "--once")
