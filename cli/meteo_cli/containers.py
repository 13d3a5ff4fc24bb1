"""A stack of containers: a command runs in one more, beside them in their network, as it would as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from dotenv import dotenv_values

from meteo_common.errors import TerminalError, UnreachableError, UsageError
from meteo_common.settings import Settings, meteo_home, project_root, setting_files, stack_directory, stack_name

INSIDE = "METEO_INSIDE"
"""Set in the container of a command: there it goes on as usual."""
STATES = "METEO_CONTAINERS"
"""What the host knew of the containers when it started the command; inside, nobody can ask Docker."""
OF_THE_HOST = frozenset(
    {"demo", "test", "bench", "up", "down", "backup", "restore", "restart", "urls", "logs", "exec", "support-bundle"}
)
"""What deploys containers and looks at them from outside."""
OF_THE_TERMINAL = ("TERM", "COLUMNS", "LINES", "NO_COLOR")
OF_THE_IMAGE = tuple(map(Path, ("/opt/meteo", "/usr", "/etc", "/bin", "/lib", "/proc", "/sys", "/dev")))
"""What a directory of the host must not hide."""


def enter(command: str | None, arguments: Sequence[str]) -> None:
    """Become this command in a container; returns where the stack's services are processes, or inside already."""
    if command in OF_THE_HOST or INSIDE in os.environ:
        return
    if command == "check" and "--json" not in arguments:
        # The playbook, which comes back here for the probes.
        return
    facts = _index()
    client = facts.get("client")
    if client is None:
        return
    if command == "page" and not {"-h", "--help"} & set(arguments):
        raise UsageError(f"The stack '{stack_name()}' serves its page from a container; ./meteo urls tells where.")
    environment = {**_settings_of_closed_file(), "TZ": _time_zone(), **os.environ}
    if command == "status":
        names = [entry["container"] for entry in facts["services"].values()]
        environment[STATES] = json.dumps(
            {name: [found["Status"], found["StartedAt"]] for name, found in states(client, names).items()}
        )
    argv = run_in_network(client, "meteo", arguments, [*settings_in(environment), STATES, "TZ"], environment)
    become(argv, environment)


def become(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Go on as this command: terminal, signals and exit code are its own."""
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except OSError as error:
        raise UsageError(f"{argv[0]} cannot be run: {error.strerror}.") from None


def client_of_stack() -> dict[str, Any] | None:
    """Return program, image, network and user of a stack of containers; None for one of processes, or for none."""
    client: dict[str, Any] | None = _index().get("client")
    return client


def run_in_network(
    client: Mapping[str, Any],
    program: str,
    arguments: Sequence[str],
    names: Iterable[str],
    environment: Mapping[str, str],
) -> list[str]:
    """Return the command line of Docker that runs a program of ours in the stack's network.

    `names`: the variables of the environment that it gets; their values would be read in the list of processes.
    """
    here, stack = Path.cwd(), stack_directory()
    # Names of files are relative to where the command was typed.
    place = Path("/mnt") if any(_overlap(here, theirs) for theirs in OF_THE_IMAGE) else here
    argv = [client["program"], "run", "--rm", "--pull", "never", *interactive(), "--init"]
    argv += ["--network", client["network"], "--user", client["user"], "--workdir", str(place)]
    argv += given((*names, *OF_THE_TERMINAL), environment)
    told = {
        INSIDE: "1",
        "METEO_HOME": str(meteo_home()),
        "METEO_STACK": stack_name(),
        "METEO_PROJECT": str(project_root()),
    }
    for name, value in told.items():
        argv += ["--env", f"{name}={value}"]
    argv += ["--volume", f"{here}:{place}"]
    for path in (stack / "stack.json", stack / "services" / "hadoop-client", *setting_files()):
        if path.exists():
            argv += ["--volume", f"{path}:{path}:ro"]
    argv += ["--volume", f"{client['producer_volume']}:{stack}/data/producer"]
    return [*argv, "--entrypoint", program, client["image"], *arguments]


def interactive() -> list[str]:
    """Return the options by which Docker hands our input on, and our terminal where there is one."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return ["--interactive", *(["--tty"] if terminal else [])]


def given(names: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Return the options by which Docker takes variables from its own environment."""
    return [word for name in sorted(set(names)) if name in environment for word in ("--env", name)]


def settings_in(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that are settings."""
    return [name for name in environment if name.lower() in Settings.model_fields]


def docker(client: Mapping[str, Any], *arguments: str) -> str:
    """Return what Docker answers. Raises TerminalError with its words when it refuses."""
    answer = _call(client, *arguments)
    if answer.returncode != 0:
        raise TerminalError(f"Docker: {_last_line(answer.stderr)}.")
    return answer.stdout


def states(client: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return Docker's State of each of these containers that is there, and its StopTimeout."""
    answer = _call(client, "container", "inspect", *names)
    if answer.returncode != 0 and "no such" not in answer.stderr.lower():
        raise UnreachableError(f"Docker does not answer: {_last_line(answer.stderr)}.")
    return {
        found["Name"].removeprefix("/"): {**found["State"], "StopTimeout": found["Config"].get("StopTimeout") or 10}
        for found in json.loads(answer.stdout or "[]")
    }


def _call(client: Mapping[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([client["program"], *arguments], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnreachableError(f"{client['program']} does not answer ({type(error).__name__}).") from None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["no answer"]
    return lines[-1].removeprefix("Error response from daemon: ").rstrip(".?")


def _index() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((stack_directory() / "stack.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _settings_of_closed_file() -> dict[str, str]:
    """The settings of a `.env` that only its owner may read, who is not the user of the container."""
    path = project_root() / ".env"
    if not os.access(path, os.R_OK) or path.stat().st_mode & 0o004:
        return {}
    return {name: value for name, value in dotenv_values(path).items() if value}


def _time_zone() -> str:
    """Return the zone of the host's clock, in which people are told the time."""
    return os.path.realpath("/etc/localtime").partition("zoneinfo/")[2] or "UTC"
