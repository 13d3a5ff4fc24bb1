"""One stack of the process runtime: its directory, its supervisor, and whether its services are well."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# HBase may take 90 s to become master and 90 s to begin, and a start that failed comes once more.
HEALTH_TIMEOUT = 300.0
LOG_LINES = 40
# A Unix socket's path may have 107 bytes, and supervisor appends a suffix of its own while it binds.
SOCKET_PATH_LIMIT = 99


class UnwellError(Exception):
    """A sentence for the user."""


class Stack:
    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.run = self.directory / "run"
        self.programs = self.run / "conf.d"
        self.logs = self.directory / "logs"
        self.index = self.directory / "stack.json"
        self.socket = self.run / "supervisor.sock"
        if len(str(self.socket)) > SOCKET_PATH_LIMIT:
            owner = self.directory.stat().st_uid if self.directory.exists() else os.getuid()
            short = hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
            self.socket = Path("/tmp") / f"meteo-{owner}-{short}" / "supervisor.sock"  # noqa: S108

    def description(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.index.read_text(encoding="utf-8"))
        return loaded

    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = self.description()["services"] if self.index.exists() else {}
        return found

    def introduce(self, runtime: str, **facts: Any) -> bool:
        """Tell stack.json what the stack as a whole is; what it knows of services stays."""
        return self._write({**facts, "runtime": runtime, "services": self.services()})

    def register(self, name: str, service: dict[str, Any] | None) -> None:
        """Tell stack.json what is known of a service; None: nothing is there to look at."""
        index = self.description()
        index["services"].pop(name, None)
        if service is not None:
            index["services"][name] = service
        self._write(index)

    def _write(self, index: dict[str, Any]) -> bool:
        # Through a link: containers have the directory that it leads to.
        return write(self.index.resolve(), json.dumps(index, indent=2) + "\n", 0o644)

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def supervisor(self) -> Any:
        """The supervisor's calls, or None when none answers on the socket."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        calls = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
        try:
            calls.getState()
        except (OSError, xmlrpc.client.Error):
            return None
        return calls

    def strays(self) -> list[int]:
        """Processes that a supervisor of this stack started and did not live to stop, known by their environment."""
        mark = f"SUPERVISOR_SERVER_URL=unix://{self.socket}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:  # it ended, or is somebody else's
                continue
        return found

    def tail(self, name: str) -> str:
        log = self.log(name)
        if not log.exists():
            return "(no log yet)"
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
        # Stack frames of Java would push the reason out of the lines shown.
        lines = [line for line in lines if not line.startswith("\tat ")]
        return "\n".join(lines[-LOG_LINES:])


def write(path: Path, text: str, mode: int) -> bool:
    """Replace a file as a whole; tell whether that was needed."""
    data = text.encode()
    if path.exists() and path.read_bytes() == data and path.stat().st_mode & 0o7777 == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.touch(mode=0o600)
    temporary.chmod(mode)
    temporary.write_bytes(data)
    temporary.replace(path)
    return True


def problem(health: dict[str, Any]) -> str | None:
    """What is wrong with a service, by its own health check; None when it is well."""
    if health.get("http"):
        return http_problem(health["http"], health.get("match"))
    if health.get("tcp"):
        try:
            socket.create_connection(("127.0.0.1", health["tcp"]), timeout=3).close()
        except OSError as error:
            return f"port {health['tcp']}: {error.strerror or error}"
    if health.get("argv"):
        return command_problem([str(word) for word in health["argv"]])
    return None


def command_problem(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).strip() or f"{argv[0]} exits with {done.returncode}" if done.returncode else None


def http_problem(url: str, match: str | None) -> str | None:
    try:
        # The empty handler keeps a proxy of the environment out of calls to this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as answer:
            body = answer.read(1_000_000).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}"
    except OSError as error:
        return f"{url}: {getattr(error, 'reason', error)}"
    if match and not re.search(match, body):
        return f"{url} answers, but without {match}"
    return None


def wait_until_well(stack: Stack, names: Iterable[str], timeout: float = HEALTH_TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    services = stack.services()
    for name in names:
        if name not in services:
            raise UnwellError(f"{name} is needed, but this stack has no such service.")
        while (trouble := problem(services[name]["health"])) is not None:
            state = process_state(stack, name)
            if state in ("FATAL", "STOPPED", "EXITED"):
                trouble = f"its process is {state}"
            elif time.monotonic() < deadline:
                time.sleep(0.25)
                continue
            raise UnwellError(
                f"{name} did not become healthy within {timeout:.0f} s ({trouble}). "
                f"The end of {stack.log(name)}:\n{stack.tail(name)}"
            )


def process_state(stack: Stack, name: str) -> str:
    calls = stack.supervisor()
    if calls is None:
        return "STOPPED"
    try:
        return str(calls.getProcessInfo(name)["statename"])
    except xmlrpc.client.Fault:
        return "ABSENT"
