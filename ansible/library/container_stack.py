#!/usr/bin/python
"""The stack of containers as a whole: its directory and the health of its services."""

from __future__ import annotations

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.docker import LABEL, containers, docker, make_volume, wait_until_well
from ansible.module_utils.supervision import Stack, UnwellError

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
    # A command may need it before the producer does, and Docker would make it without a label.
    make_volume(params["program"], params["client"]["producer_volume"], params["name"])
    facts = {name: params[name] for name in ("name", "port_offset", "client", "secrets_file", "notes")}
    return stack.introduce("docker", **facts) or changed


def remove_network(program: str, network: str, stack: str) -> list[str]:
    """Remove it where the stack has made it; it stays for the containers of others, whose names are returned."""
    own = docker(program, "network", "ls", "--format", "{{.Name}}", "--filter", f"label={LABEL}={stack}").split()
    if network not in own:
        return []
    template = "{{range .Containers}}{{.Name}} {{end}}"
    attached = set(docker(program, "network", "inspect", "--format", template, network).split())
    others = containers(program)
    # Seen with Docker 20.10 after a container was killed and came back: its endpoint outlived it.
    for name in attached - others:
        docker(program, "network", "disconnect", "--force", network, name)
    if not attached & others:
        docker(program, "network", "rm", network)
    return sorted(attached & others)


def volumes(params: dict[str, Any]) -> list[str]:
    """The volumes of the stack, also of services that were switched off meanwhile."""
    own = f"label={LABEL}={params['name']}"
    return docker(params["program"], "volume", "ls", "--quiet", "--filter", own).split()


def to_purge(stack: Stack, params: dict[str, Any]) -> bool:
    """Whether there is data to delete, and it is to be: the directory may have gone before the volumes."""
    return params["purge"] and (stack.directory.exists() or bool(volumes(params)))


def remove(stack: Stack, params: dict[str, Any]) -> dict[str, Any]:
    """Remove the containers, those that nobody needs first, and the network; return what was there."""
    program, services = params["program"], stack.services()
    needs = {entry["container"]: entry["needs"] for entry in services.values()}
    here = containers(program, params["name"])
    removed = bool(here)
    while here:
        wanted = {need for each in here for need in needs.get(each, [])}
        needed = {services[name]["container"] for name in wanted & services.keys()}
        # Side by side, each within its own time to stop.
        last = sorted(here - needed) or sorted(here)
        docker(program, "stop", *last)
        docker(program, "rm", *last)
        here -= set(last)
    purged = to_purge(stack, params)
    if purged:
        if found := volumes(params):
            docker(program, "volume", "rm", *found)
        if stack.directory.exists():
            shutil.rmtree(stack.directory)
    others = remove_network(program, params["client"]["network"], params["name"])
    return {"changed": removed or purged, "stopped": removed, "purged": purged, "others": others}


def foreseen(stack: Stack, params: dict[str, Any]) -> dict[str, Any]:
    """What a run would tell that may change something; nobody waits for health meanwhile."""
    if params["state"] != "absent":
        return {"changed": params["state"] == "started" and not stack.directory.is_dir()}
    stopped = bool(containers(params["program"], params["name"]))
    purged = to_purge(stack, params)
    return {"changed": stopped or purged, "stopped": stopped, "purged": purged, "others": []}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    # The containers' users must be able to enter what root makes, whatever root's own umask is.
    os.umask(0o022)
    params = module.params
    stack = Stack(params["directory"])
    try:
        if module.check_mode:
            module.exit_json(**foreseen(stack, params))
        if params["state"] == "started":
            module.exit_json(changed=start(stack, params))
        if params["state"] == "absent":
            module.exit_json(**remove(stack, params))
        wait_until_well(stack, params["program"], params["services"] or stack.services(), asked=False)
        module.exit_json(changed=False)
    except UnwellError as sentence:
        module.fail_json(msg=str(sentence))


if __name__ == "__main__":
    main()
