#!/usr/bin/python
"""The stack of containers as a whole: its directory and the health of its services."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.supervision import HEALTH_TIMEOUT, LOG_LINES, Stack, UnwellError

DOCUMENTATION = """
module: container_stack
short_description: A stack's containers
description: Makes its directory, or waits for the health of its services.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "program": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "healthy", "absent"], "default": "healthy"},
    "name": {"type": "str"},
    "port_offset": {"type": "int", "default": 0},
    "client": {"type": "dict", "default": {}},
    "secrets_file": {"type": "path", "default": "", "no_log": False},
    "notes": {"type": "list", "elements": "str", "default": []},
    "purge": {"type": "bool", "default": False},
    "services": {"type": "list", "elements": "str", "default": []},
}


def start(stack: Stack, params: dict[str, Any]) -> bool:
    changed = not stack.directory.is_dir()
    stack.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A file that is mounted alone would stay what it was when another takes its name; a directory shows the new one.
    index = stack.directory / "index"
    index.mkdir(exist_ok=True)
    if stack.index.exists() and not stack.index.is_symlink():
        raise UnwellError(
            f"The stack {params['name']} is there as processes: ./meteo down --purge deletes it; or take another name."
        )
    if not stack.index.is_symlink():
        stack.index.symlink_to(index / "stack.json")
    facts = {name: params[name] for name in ("name", "port_offset", "client", "secrets_file", "notes")}
    return stack.introduce("docker", **facts) or changed


def health(program: str, container: str) -> str:
    said = subprocess.run(
        [program, "inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or said.stderr.strip()


def wait(stack: Stack, program: str, names: list[str]) -> None:
    deadline = time.monotonic() + HEALTH_TIMEOUT
    services = stack.services()
    for name in names or services:
        container = services[name]["container"]
        while (state := health(program, container)) != "running healthy":
            if time.monotonic() > deadline:
                logs = subprocess.run(
                    [program, "logs", "--tail", str(LOG_LINES), container], capture_output=True, text=True, check=False
                )
                raise UnwellError(
                    f"{name} did not become healthy within {HEALTH_TIMEOUT:.0f} s (its container {container} is "
                    f"{state}). The end of its log:\n{logs.stdout}{logs.stderr}"
                )
            time.sleep(0.5)


def docker(program: str, *arguments: str) -> str:
    """What Docker says; a sentence when it refuses."""
    said = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if said.returncode:
        raise UnwellError(f"docker {arguments[0]}: {said.stderr.strip()}")
    return said.stdout


def containers(program: str) -> set[str]:
    """The names of all containers, also of those that have ended."""
    return set(docker(program, "ps", "--all", "--format", "{{.Names}}").split())


def remove_network(program: str, network: str) -> None:
    """Remove it where it is there; a container of somebody else's in it is told by Docker."""
    if network not in docker(program, "network", "ls", "--format", "{{.Name}}").split():
        return
    attached = docker(program, "network", "inspect", "--format", "{{range .Containers}}{{.Name}} {{end}}", network)
    # Seen with Docker 20.10 after a container was killed and came back: its endpoint outlived it.
    for name in set(attached.split()) - containers(program):
        docker(program, "network", "disconnect", "--force", network, name)
    docker(program, "network", "rm", network)


def remove(stack: Stack, params: dict[str, Any]) -> tuple[bool, bool]:
    """Remove the containers, those that nobody needs first, and the network; tell what was there."""
    program, services = params["program"], stack.services()
    names = {entry["container"]: name for name, entry in services.items()}
    here = containers(program) & names.keys()
    removed = bool(here)
    while here:
        wanted = {need for each in here for need in services[names[each]]["needs"]}
        needed = {services[name]["container"] for name in wanted & services.keys()}
        # Side by side, each within its own time to stop.
        last = sorted(here - needed) or sorted(here)
        docker(program, "stop", *last)
        docker(program, "rm", *last)
        here -= set(last)
    remove_network(program, params["client"]["network"])
    purged = params["purge"] and stack.directory.exists()
    if purged:
        volumes = docker(program, "volume", "ls", "--format", "{{.Name}}").split()
        if own := [volume for volume in volumes if volume in names]:
            docker(program, "volume", "rm", *own)
        shutil.rmtree(stack.directory)
    return removed, purged


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    params = module.params
    stack = Stack(params["directory"])
    try:
        if params["state"] == "started":
            module.exit_json(changed=start(stack, params))
        if params["state"] == "absent":
            stopped, purged = remove(stack, params)
            module.exit_json(changed=stopped or purged, stopped=stopped, purged=purged)
        wait(stack, params["program"], params["services"])
        module.exit_json(changed=False)
    except UnwellError as sentence:
        module.fail_json(msg=str(sentence))


if __name__ == "__main__":
    main()
