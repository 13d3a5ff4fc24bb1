"""What the modules of the second runtime ask Docker, and how they wait for containers to be well."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable

from ansible.module_utils.supervision import HEALTH_TIMEOUT, LOG_LINES, Stack, UnwellError

LABEL = "meteo.stack"
"""On each container, volume and network of a stack; its value is the stack's name. What lacks it is somebody else's."""


def docker(program: str, *arguments: str) -> str:
    """What Docker says; a sentence when it refuses."""
    said = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if said.returncode:
        raise UnwellError(f"docker {arguments[0]}: {said.stderr.strip()}")
    return said.stdout


def containers(program: str, stack: str | None = None) -> set[str]:
    """The names of all containers, or of a stack's, also of those that have ended."""
    own = () if stack is None else ("--filter", f"label={LABEL}={stack}")
    return set(docker(program, "ps", "--all", "--format", "{{.Names}}", *own).split())


def make_volume(program: str, name: str, stack: str) -> None:
    """Make a volume of the stack; one that is there stays as it is."""
    docker(program, "volume", "create", "--label", f"{LABEL}={stack}", name)


def ask(program: str, container: str, template: str) -> str:
    """What Docker knows of a container; why not, where it knows nothing."""
    said = subprocess.run(
        [program, "inspect", "--type", "container", "--format", template, container],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or said.stderr.strip()


def runs_as(program: str, container: str, digest: str) -> bool:
    """Whether the container runs, with the files of this hash."""
    told = ask(program, container, "{{.State.Running}} {{range .Config.Env}}{{println .}}{{end}}")
    return told.startswith("true ") and f"CONFIG_HASH={digest}" in told.split()


def state(program: str, container: str) -> str:
    """What Docker says of it: `running healthy` is what it should be."""
    return ask(program, container, "{{.State.Status}} {{.State.Health.Status}}")


def is_well(program: str, container: str, *, asked: bool) -> bool:
    """Whether it is well, as Docker found last; `asked`: or as its own check says now, up to 10 s earlier."""
    if state(program, container) == "running healthy":
        return True
    if not asked:
        return False
    check = ask(program, container, "{{index .Config.Healthcheck.Test 1}}")
    return (
        subprocess.run([program, "exec", container, "sh", "-c", check], capture_output=True, check=False).returncode
        == 0
    )


def wait_until_well(stack: Stack, program: str, names: Iterable[str], *, asked: bool) -> None:
    """Wait for the health of these services; raises UnwellError with the end of the log of one that stays unwell."""
    deadline = time.monotonic() + HEALTH_TIMEOUT
    services = stack.services()
    for name in names:
        container = services[name]["container"]
        while not is_well(program, container, asked=asked):
            if time.monotonic() > deadline:
                logs = subprocess.run(
                    [program, "logs", "--tail", str(LOG_LINES), container], capture_output=True, text=True, check=False
                )
                raise UnwellError(
                    f"{name} did not become healthy within {HEALTH_TIMEOUT:.0f} s (its container {container} is "
                    f"{state(program, container)}). The end of its log:\n{logs.stdout}{logs.stderr}"
                )
            time.sleep(0.5)
