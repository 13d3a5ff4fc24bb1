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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from meteo_cli import containers
from meteo_common.errors import MeteoError, TerminalError, UnreachableError, UsageError
from meteo_common.settings import HOME_OF_ROOT, home_of_person, meteo_home, project_root, stack_directory, stack_name

PROBE_SECONDS = 3.0
UPTIME = re.compile(r"uptime (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
EMBEDDED, CONTAINERS = "inventory/embedded.ini", "inventory.ini"
_PUT_UP = "ansible-playbook -i ansible/inventory.ini ansible/site.yml"


@dataclass(frozen=True)
class StackService:
    """A server or service of a stack."""

    name: str
    ports: dict[str, Any]
    urls: list[dict[str, str]]
    health: dict[str, Any]
    log: Path | None
    """None for a container: Docker keeps what it says."""
    container: str | None = None

    @property
    def host(self) -> str:
        """Where its ports are: a container is known by its service's name, to those in its network."""
        return self.name if self.container else "127.0.0.1"

    def healthy(self) -> bool:
        """Say whether its health check answers now."""
        if url := self.health.get("http"):
            import requests  # 50 ms, which other commands need not wait for

            try:
                answer = requests.get(url, timeout=PROBE_SECONDS)
            except requests.RequestException:
                return False
            # The pages of some servers answer 200 long before the server works.
            return answer.ok and re.search(self.health.get("match", ""), answer.text) is not None
        if port := self.health.get("tcp"):
            return answers(self.health.get("host", "127.0.0.1"), int(port))
        if argv := self.health.get("argv"):
            with suppress(OSError, subprocess.TimeoutExpired):
                return (
                    subprocess.run(list(map(str, argv)), capture_output=True, timeout=30, check=False).returncode == 0
                )
        return False


@dataclass(frozen=True)
class State:
    """What runs a service says of it: a word, as supervisor has it, more, and since when it runs."""

    word: str = "STOPPED"
    detail: str = ""
    since: str | None = None


@dataclass(frozen=True)
class Stack:
    """A stack as it was deployed last."""

    name: str
    port_offset: int
    services: list[StackService]
    secrets_file: Path
    notes: list[str]
    """Sentences that the deployment left for a person, such as what is missing on this machine."""
    client: dict[str, Any] | None = None
    """How to speak to containers; None where the services are processes."""

    @property
    def directory(self) -> Path:
        """Where its state lies."""
        return stack_directory(self.name)


def no_stack() -> UsageError:
    """Return what to say of a stack that was never put up by who asks; root and others have stacks of their own."""
    name, elsewhere = stack_name(), ""
    for home, how in ((HOME_OF_ROOT, "sudo ./meteo"), (home_of_person(), "./meteo without sudo")):
        # Path.exists fails where one may not look.
        if home != meteo_home() and os.access(home / "stacks" / name, os.F_OK):
            elsewhere = f" There is one in {home}: {how} speaks to that."
    return UsageError(f"There is no stack '{name}' yet; put it up with ./meteo up.{elsewhere}")


def read_stack() -> Stack:
    """Return the stack that METEO_STACK names. Raises UsageError when it was never deployed."""
    path = stack_directory() / "stack.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise no_stack() from None
    services = [
        StackService(
            name,
            entry.get("ports") or {},
            entry.get("urls") or [],
            entry.get("health") or {},
            Path(entry["log"]) if "log" in entry else None,
            entry.get("container"),
        )
        for name, entry in facts["services"].items()
    ]
    return Stack(
        facts["name"],
        facts["port_offset"],
        services,
        Path(facts["secrets_file"]),
        facts.get("notes", []),
        facts.get("client"),
    )


def states(deployed: Stack) -> dict[str, State]:
    """Return the state of each service that is known to what runs it; of containers, as the host handed it over."""
    if deployed.client is None:
        return _processes()
    told = json.loads(os.environ.get(containers.STATES) or "{}")
    return {
        service.name: State(
            told[service.container][0].upper(),
            f"container {service.container}",
            f"{told[service.container][1][:19]}Z" if told[service.container][0] == "running" else None,
        )
        for service in deployed.services
        if service.container in told
    }


def healthy(deployed: Stack, service: StackService) -> bool:
    """Say whether a service is well, on the host: a container's own address is unknown there, but Docker asks it."""
    if deployed.client is None or service.container is None:
        return service.healthy()
    found = containers.states(deployed.client, [service.container]).get(service.container, {})
    return found.get("Status") == "running" and found.get("Health", {}).get("Status") == "healthy"


def restart(service: StackService) -> str:
    """Stop and start one service, and return what was done."""
    client = containers.client_of_stack()
    if client is None or service.container is None:
        return supervisorctl("restart", service.name).strip()
    found = containers.states(client, [service.container]).get(service.container)
    if found is None:
        raise UsageError(f"The container {service.container} is not there; {_PUT_UP} makes it.")
    # Docker's older clients give every container 10 s.
    containers.docker(client, "restart", "-t", str(found["StopTimeout"]), service.container)
    return f"{service.name}: restarted"


def answers(host: str, port: int) -> bool:
    """Say whether something listens there."""
    # A container that is stopped has no address at all.
    with suppress(OSError), socket.create_connection((host, port), PROBE_SECONDS):
        return True
    return False


def deploy(**variables: Any) -> None:
    """Run the playbook that puts the stack up, showing what it does. Raises TerminalError when it fails."""
    refuse_containers()
    run_playbook("site.yml", named(**variables), "The stack was not put up; the last task above says why.")


def named(**variables: Any) -> dict[str, Any]:
    """Return variables for a playbook that puts the stack up: its name, and its offset if that is known."""
    offset = os.environ.get("METEO_PORT_OFFSET")
    if offset is None and (stack_directory() / "stack.json").exists():
        offset = str(read_stack().port_offset)
    return {"stack_name": stack_name(), **({"port_offset": offset} if offset else {}), **variables}


def take_down(*, purge: bool) -> None:
    """Stop every process of the stack; `purge` deletes its data too."""
    refuse_containers()
    run_playbook(
        "down.yml", {"stack_name": stack_name(), "purge": purge}, "The stack was not taken down; see the task above."
    )


def check() -> None:
    """Run the playbook that uses each server and service. Raises TerminalError when one of them does not work."""
    deployed = read_stack()
    inventory = EMBEDDED if deployed.client is None else CONTAINERS
    failure = "Not everything works; see the lines above."
    run_playbook("check.yml", {"stack_name": deployed.name}, failure, inventory=inventory)


def refuse_containers(book: str = "site.yml") -> None:
    """Raise UsageError for a stack of containers: the variables of its inventory are the user's, and unknown here."""
    if containers.client_of_stack() is None:
        return
    deployed = read_stack()
    chosen = {"stack_name": deployed.name, "port_offset": deployed.port_offset}
    told = _PUT_UP.replace("site.yml", book)
    told += "".join(f" -e {name}={value}" for name, value in chosen.items() if value not in ("meteo", 0))
    if book != "site.yml":
        raise UsageError(f"The stack '{deployed.name}' runs in containers: `{told}` does this; see docs/backup.md.")
    raise UsageError(
        f"The stack '{deployed.name}' runs in containers: `{told}` puts it up; with -e meteo_state=absent it takes it"
        " down."
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


def _processes() -> dict[str, State]:
    try:
        said = supervisorctl("status")
    except MeteoError:
        return {}
    found = {}
    for line in said.splitlines():
        if line.strip():
            name, word, *rest = line.split(None, 2)
            detail = " ".join("".join(rest).split())
            found[name] = State(word, detail, _since(detail))
    return found


def _since(detail: str) -> str | None:
    """Return when a process began, of the supervisor's words about it."""
    match = UPTIME.search(detail)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    begun = datetime.now(UTC) - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return begun.isoformat(timespec="seconds").replace("+00:00", "Z")


def pack(file: Path | None, log_mb: int) -> None:
    """Run the playbook that packs what is known of the stack into a file, whatever runs its services."""
    runtime = EMBEDDED if containers.client_of_stack() is None else CONTAINERS
    given = {"stack_name": stack_name(), "support_bundle_log_mb": log_mb}
    if file is not None:
        given["support_bundle_file"] = str(file.absolute())
    run_playbook("support-bundle.yml", given, "There is no bundle; the last task above says why.", inventory=runtime)


def run_playbook(name: str, variables: dict[str, Any], failure: str, *options: str, inventory: str = EMBEDDED) -> None:
    """Run a playbook, showing what it does. Raises TerminalError, saying `failure`."""
    ansible = project_root() / "ansible"
    if not (ansible / name).exists():
        raise UsageError(f"{ansible} is not there: run ./meteo from the checkout.")
    command = [
        _tool("ansible-playbook"),
        "-i",
        str(ansible / inventory),
        str(ansible / name),
        "-e",
        json.dumps(variables),
        *options,
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
