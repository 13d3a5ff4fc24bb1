"""A deployed stack: what `stack.json` says of it, and the calls that put it up and take it down."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from meteo_common.errors import TerminalError, UnreachableError, UsageError
from meteo_common.settings import meteo_home, project_root, stack_directory, stack_name

PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class StackService:
    """A server or service of a stack."""

    name: str
    ports: dict[str, Any]
    urls: list[dict[str, str]]
    health: dict[str, Any]
    log: Path

    def healthy(self) -> bool:
        """Say whether its health check answers now."""
        if url := self.health.get("http"):
            try:
                answer = requests.get(url, timeout=PROBE_SECONDS)
            except requests.RequestException:
                return False
            # The pages of some servers answer 200 long before the server works.
            return answer.ok and re.search(self.health.get("match", ""), answer.text) is not None
        if port := self.health.get("tcp"):
            with socket.socket() as probe:
                probe.settimeout(PROBE_SECONDS)
                return probe.connect_ex(("127.0.0.1", int(port))) == 0
        if argv := self.health.get("argv"):
            with suppress(OSError, subprocess.TimeoutExpired):
                return (
                    subprocess.run(list(map(str, argv)), capture_output=True, timeout=30, check=False).returncode == 0
                )
        return False


@dataclass(frozen=True)
class Stack:
    """A stack as it was deployed last."""

    name: str
    port_offset: int
    services: list[StackService]
    secrets_file: Path
    notes: list[str]
    """Sentences that the deployment left for a person, such as what is missing on this machine."""

    @property
    def directory(self) -> Path:
        """Where its state lies."""
        return stack_directory(self.name)


def read_stack() -> Stack:
    """Return the stack that METEO_STACK names. Raises UsageError when it was never deployed."""
    path = stack_directory() / "stack.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no stack '{stack_name()}' yet; put it up with ./meteo up.") from None
    services = [
        StackService(
            name,
            entry.get("ports") or {},
            entry.get("urls") or [],
            entry.get("health") or {},
            Path(entry["log"]),
        )
        for name, entry in facts["services"].items()
    ]
    return Stack(facts["name"], facts["port_offset"], services, Path(facts["secrets_file"]), facts.get("notes", []))


def deploy(**variables: Any) -> None:
    """Run the playbook that puts the stack up, showing what it does. Raises TerminalError when it fails."""
    offset = os.environ.get("METEO_PORT_OFFSET")
    if offset is None and (stack_directory() / "stack.json").exists():
        offset = str(read_stack().port_offset)
    given = {"stack_name": stack_name(), **({"port_offset": offset} if offset else {}), **variables}
    _playbook("site.yml", given, "The stack was not put up; the last task above says why.")


def take_down(*, purge: bool) -> None:
    """Stop every process of the stack; `purge` deletes its data too."""
    _playbook(
        "down.yml", {"stack_name": stack_name(), "purge": purge}, "The stack was not taken down; see the task above."
    )


def supervisorctl(*arguments: str) -> str:
    """Return what supervisorctl says. Raises UnreachableError when no supervisor runs."""
    configuration = read_stack().directory / "run" / "supervisor.conf"
    command = [_tool("supervisorctl"), "-c", str(configuration), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "no such file" in answer.stdout or "refused" in answer.stdout:
        raise UnreachableError(f"The stack '{stack_name()}' is not running; put it up with ./meteo up.")
    if "ERROR" in answer.stdout:
        raise TerminalError(f"supervisor: {' '.join(answer.stdout.split())}; ./meteo logs NAME tells more.")
    return answer.stdout


def _playbook(name: str, variables: dict[str, Any], failure: str) -> None:
    ansible = project_root() / "ansible"
    if not (ansible / name).exists():
        raise UsageError(f"{ansible} is not there: run ./meteo from the checkout.")
    command = [
        _tool("ansible-playbook"),
        "-i",
        str(ansible / "inventory" / "embedded.ini"),
        str(ansible / name),
        "-e",
        json.dumps(variables),
    ]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ansible / "ansible.cfg"),
        # Ansible refuses a locale that the machine does not have, such as one that ssh brought along.
        "LC_ALL": "C.UTF-8",
        "METEO_HOME": str(meteo_home()),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    sys.stdout.flush()
    if subprocess.run(command, env=environment, cwd=ansible, check=False).returncode != 0:
        raise TerminalError(failure)


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name) or name
