#!/usr/bin/python
"""The files of one service in a container, and its place in stack.json."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import rendering
from ansible.module_utils.docker import docker, make_volume, runs_as, state, wait_until_well
from ansible.module_utils.listeners import holder, listeners, parents, taken
from ansible.module_utils.supervision import Stack, UnwellError

DOCUMENTATION = """
module: container_files
short_description: What a service's container is given to read
description: Returns a hash of it, by which the container knows whether it must start again.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    **rendering.ARGUMENTS,
    "program": {"type": "str", "required": True},
    "container": {"type": "str", "required": True},
    "owner": {"type": "int", "required": True},
    "data": {"type": "str", "required": True},
    "published": {"type": "list", "elements": "str", "default": []},
}
# Docker's words for a container that has its ports.
ALIVE = ("running", "paused", "restarting")
# What else listens on the host is looked for on these addresses only.
LOOKED_AT = ("127.0.0.1", "0.0.0.0")  # noqa: S104  # nothing is bound to it


def script(wanted: dict[str, Any]) -> str:
    """What the container runs: it makes its data ready once, then becomes the server."""
    lines = [*rendering.head(wanted["data"], wanted), "set -e"]
    lines += [f"mkdir -p {shlex.quote(directory)}" for directory in wanted["dirs"]]
    for step in wanted["prepare"]:
        lines.append(f"[ -e {shlex.quote(step['creates'])} ] || {shlex.join(step['argv'])}")
    return "\n".join([*lines, f"exec {shlex.join(wanted['argv'])}", ""])


def own(home: Path, user: int) -> bool:
    """Give the files to the container's user; the directories stay the host's."""
    changed = False
    for path in home.rglob("*"):
        if path.is_file() and path.stat().st_uid != user:
            os.chown(path, user, user)
            changed = True
    return changed


def from_network(wanted: dict[str, Any]) -> dict[str, Any]:
    """The health check as other containers can make it: programs are the container's own."""
    health = wanted["health"]
    if health.get("argv") or health.get("tcp"):
        return {"host": wanted["name"], "tcp": health.get("tcp") or next(iter(wanted["ports"].values()))}
    return health


def register(stack: Stack, wanted: dict[str, Any]) -> None:
    """Tell stack.json what runs."""
    told = {name: wanted[name] for name in ("container", "ports", "urls", "needs")}
    runs = wanted["state"] == "present" and wanted["argv"]
    stack.register(wanted["name"], {**told, "health": from_network(wanted)} if runs else None)


def wait_for_needs(stack: Stack, wanted: dict[str, Any], digest: str) -> None:
    """Before the container is started, or made anew. What another run deploys is not waited for."""
    if wanted["argv"] and not runs_as(wanted["program"], wanted["container"], digest):
        here = [name for name in wanted["needs"] if name in stack.services()]
        wait_until_well(stack, wanted["program"], here, asked=True)


def taken_ports(wanted: dict[str, Any]) -> list[str]:
    """A sentence for each port of the host that the container is to have and somebody else has."""
    program = wanted["program"]
    if state(program, wanted["container"]).startswith(ALIVE):
        return []
    names = {port: name for name, port in wanted["ports"].items()}
    found, held, processes = [], listeners(), parents()
    for published in wanted["published"]:
        address, host_port, _ = published.rsplit(":", 2)
        port = int(host_port)
        if address in LOOKED_AT and port in held:
            there = docker(program, "ps", "--filter", f"publish={port}", "--format", "{{.Names}}").split()
            who = f"the container {there[0]}" if there else holder(held[port], processes)
            found.append(taken(port, wanted["name"], names.get(port, "published"), who))
    return found


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    # The container's user must be able to enter what root makes, whatever root's own umask is.
    os.umask(0o022)
    try:
        deploy(module, module.params)
    except UnwellError as sentence:
        module.fail_json(msg=str(sentence))


def deploy(module: AnsibleModule, wanted: dict[str, Any]) -> None:
    """Write, or with --check compare, the files; ends the module."""
    stack = Stack(wanted["stack_directory"])
    home = stack.directory / "services" / wanted["name"]
    if wanted["state"] == "present" and wanted["argv"] and (wrong := taken_ports(wanted)):
        raise UnwellError("\n".join(wrong))
    if not module.check_mode:
        register(stack, wanted)
    if wanted["state"] == "absent":
        present = home.exists()
        if not module.check_mode:
            shutil.rmtree(home, ignore_errors=True)
        module.exit_json(changed=present)
    texts = rendering.texts(home, wanted)
    if wanted["argv"]:
        texts[home / "run"] = (script(wanted), 0o500)
    diff = {"prepared": rendering.differences(home, texts, wanted["secrets"])}
    changed, digest = bool(diff["prepared"]), rendering.digest(texts, wanted["fingerprint"])
    if not module.check_mode:
        rendering.converge(home, texts)
        changed |= own(home, wanted["owner"])
        if wanted["argv"]:
            make_volume(wanted["program"], wanted["container"], stack.directory.name)
        wait_for_needs(stack, wanted, digest)
    module.exit_json(changed=changed, diff=diff, hash=digest)


if __name__ == "__main__":
    main()
