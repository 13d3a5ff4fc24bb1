"""Stacks of the deployment tests: real ones, each with a name and ports of its own, always taken down again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import pytest
from supervisor.xmlrpc import SupervisorTransport

from meteo_common.settings import meteo_home

PROJECT = Path(__file__).parents[2]
ANSIBLE = PROJECT / "ansible"
PROGRAMS = Path(sys.executable).parent
# No port of it may meet one of the other stacks' that tests run; test_description.py proves it.
DEPLOY_OFFSET = 3600


@dataclass
class Run:
    """One run of a playbook."""

    code: int
    output: str
    changed: int = field(init=False)

    def __post_init__(self) -> None:
        recap = re.search(r"changed=(\d+)", self.output)
        self.changed = int(recap[1]) if recap else -1


@dataclass(frozen=True)
class Deployment:
    """A stack by name, deployed as ./meteo up does."""

    name: str
    offset: int
    inventory: Path = ANSIBLE / "inventory" / "embedded.ini"
    program: Path = PROGRAMS / "ansible-playbook"
    variables: dict[str, Any] = field(default_factory=dict)
    umask: int = -1
    """Of who runs the playbooks; -1: the tests' own."""

    @property
    def directory(self) -> Path:
        return meteo_home() / "stacks" / self.name

    def playbook(
        self, book: str, environment: dict[str, str] | None = None, arguments: Sequence[str] = (), **variables: Any
    ) -> Run:
        given = {"stack_name": self.name, "port_offset": self.offset, **self.variables, **variables}
        command: list[str | Path] = [
            self.program,
            *("-i", self.inventory, ANSIBLE / book, "-e", json.dumps(given), *arguments),
        ]
        ran = subprocess.run(
            command,
            cwd=ANSIBLE,
            env={**os.environ, "PATH": f"{self.program.parent}:{os.environ['PATH']}", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            umask=self.umask,
            check=False,
        )
        return Run(ran.returncode, ran.stdout)

    def up(self, **variables: Any) -> Run:
        return self.playbook("site.yml", **variables)

    def foresee(self, **variables: Any) -> Run:
        """Run it as what shows what would change, and changes nothing."""
        return self.playbook("site.yml", arguments=("--check", "--diff"), **variables)

    def down(self, **variables: Any) -> Run:
        return self.playbook("down.yml", **variables)

    def meteo(self, *arguments: object, code: int = 0) -> str:
        """Type a command of ./meteo for the stack, as a user of the machine does; what it printed."""
        ran = subprocess.run(
            [PROGRAMS / "meteo", "--stack", self.name, *map(str, arguments)],
            env={**os.environ, "METEO_PROJECT": str(PROJECT), "METEO_PORT_OFFSET": str(self.offset)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert ran.returncode == code, f"meteo {' '.join(map(str, arguments))}: {ran.returncode}\n{ran.stdout}"
        return ran.stdout

    def settings(self) -> dict[str, str]:
        lines = (self.directory / "settings.env").read_text(encoding="utf-8").splitlines()
        return {key: value.strip("'") for key, _, value in (line.partition("=") for line in lines)}

    def processes(self) -> dict[str, int]:
        """Service → process id, of those that run."""
        return {process["name"]: process["pid"] for process in self.supervisor().getAllProcessInfo() if process["pid"]}

    def supervisor(self) -> Any:
        """The calls of the stack's supervisor."""
        address = (self.directory / "run" / "supervisor.conf").read_text(encoding="utf-8")
        socket = re.search(r"^serverurl=(.+)$", address, re.MULTILINE)
        assert socket is not None
        transport = SupervisorTransport(None, None, socket[1])
        return ServerProxy("http://127.0.0.1", transport=transport).supervisor


def flat(output: str) -> str:
    """Return a text on one line: a terminal's width is not ours."""
    return " ".join(output.split())


def alive(directory: Path) -> list[str]:
    """Command lines of processes that have to do with a directory."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if f"{directory}/" in line]


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployment]:
    """The stack `deploy`, empty and not running at first."""
    deployment = Deployment("deploy", DEPLOY_OFFSET)
    deployment.down(purge=True)
    yield deployment
    assert deployment.down(purge=True).code == 0
    shutil.rmtree(deployment.directory, ignore_errors=True)
