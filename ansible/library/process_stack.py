#!/usr/bin/python
"""The stack as a whole: its directories and supervisor, the health of all its services, its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xmlrpc.client
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.supervision import Stack, UnwellError, wait_until_well, write

DOCUMENTATION = """
module: process_stack
short_description: A stack's supervisor
description: Starts it, waits for the health of its services, or stops everything in the order of their needs.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["started", "healthy", "stopped"], "default": "started"},
    "name": {"type": "str"},
    "port_offset": {"type": "int", "default": 0},
    "secrets_file": {"type": "path", "default": "", "no_log": False},
    "notes": {"type": "list", "elements": "str", "default": []},
    "services": {"type": "list", "elements": "str", "default": []},
    "purge": {"type": "bool", "default": False},
}
# What services may see of the shell that deploys: anything else, such as a setting of one run, would outlive it.
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_.*|TZ|TMPDIR|(?i:https?|all|no)_(?i:proxy)|.*_CA_BUNDLE|SSL_CERT_.*"
)


def configuration(stack: Stack, name: str) -> str:
    return f"""\
[supervisord]
identifier=meteo-{name}
logfile={stack.logs}/supervisord.log
logfile_maxbytes=20MB
logfile_backups=3
pidfile={stack.run}/supervisord.pid
childlogdir={stack.logs}
umask=022

[unix_http_server]
file={stack.socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{stack.socket}

[include]
files=conf.d/*.conf
"""


def start(stack: Stack, params: dict[str, Any]) -> bool:
    changed = False
    for directory in (stack.directory, stack.logs, stack.run, stack.programs, stack.socket.parent):
        if not directory.is_dir():
            directory.mkdir(mode=0o700 if directory in (stack.run, stack.socket.parent) else 0o755, parents=True)
            changed = True
    if stack.socket.parent.stat().st_uid != os.getuid():
        raise UnwellError(f"{stack.socket.parent} belongs to another user; remove it.")
    facts = {name: params[name] for name in ("name", "port_offset", "secrets_file", "notes")}
    changed |= stack.introduce("process", **facts)
    path = stack.run / "supervisor.conf"
    changed |= write(path, configuration(stack, params["name"]), 0o600)
    if stack.supervisor():
        return changed
    end(strays(stack))
    environment = {key: value for key, value in os.environ.items() if INHERITED.fullmatch(key)}
    program = Path(sys.executable).with_name("supervisord")
    ran = subprocess.run([program, "-c", path], cwd="/", env=environment, capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 15
    while not stack.supervisor():
        if ran.returncode or time.monotonic() > deadline:
            raise UnwellError(f"The supervisor did not start:\n{ran.stdout}{ran.stderr}{stack.tail('supervisord')}")
        time.sleep(0.1)
    return True


def processes() -> dict[int, tuple[int, str]]:
    """Parent and start time of everything that lives: a pid alone may be another process later."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,lstart="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 3) for line in listing.stdout.splitlines())
    return {int(pid): (int(parent), born) for pid, parent, state, born in rows if not state.startswith("Z")}


def descendants(root: int) -> dict[int, str]:
    everything = processes()
    found, queue = {}, [root]
    while queue:
        pid = queue.pop()
        if pid in everything:
            found[pid] = everything[pid][1]
        queue += [child for child, (parent, _) in everything.items() if parent == pid]
    return found


def stop(stack: Stack) -> bool:
    calls = stack.supervisor()
    family = strays(stack)
    if calls is not None:
        family |= descendants(calls.getPID())
        stop_in_order(stack, calls)
        calls.shutdown()
        wait_for_end(family, 15)
    end(family)
    return bool(family)


def strays(stack: Stack) -> dict[int, str]:
    everything = processes()
    return {pid: everything[pid][1] for pid in stack.strays() if pid in everything}


def end(family: dict[int, str]) -> None:
    """What no supervisor ends any more; 45 s is the longest that a server was given to end by itself."""
    for chosen, seconds in ((signal.SIGTERM, 45), (signal.SIGKILL, 5)):
        for pid in alive(family):
            with suppress(ProcessLookupError):
                os.kill(pid, chosen)
        wait_for_end(family, seconds)
    if left := alive(family):
        raise UnwellError(f"These processes of the stack did not end: {', '.join(map(str, left))}.")


def wait_for_end(family: dict[int, str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while alive(family) and time.monotonic() < deadline:
        time.sleep(0.1)


def alive(family: dict[int, str]) -> list[int]:
    everything = processes()
    return [pid for pid, born in family.items() if pid in everything and everything[pid][1] == born]


def stop_in_order(stack: Stack, calls: Any) -> None:
    """Services side by side, each as soon as nothing that needs it is left."""
    services = stack.services()
    stopping: set[str] = set()
    while running := {
        process["name"]
        for process in calls.getAllProcessInfo()
        if process["statename"] not in ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
    }:
        needed = {need for name in running for need in services.get(name, {}).get("needs", [])}
        for name in running - needed - stopping:
            stopping.add(name)
            try:
                calls.stopProcess(name, False)
            except xmlrpc.client.Fault:  # it ended by itself meanwhile
                continue
        time.sleep(0.2)


def foreseen(stack: Stack, params: dict[str, Any]) -> dict[str, Any]:
    """What a run would tell that may change something; nobody waits for health meanwhile."""
    runs = stack.supervisor() is not None
    if params["state"] != "stopped":
        return {"changed": params["state"] == "started" and not runs}
    purged = params["purge"] and stack.directory.exists()
    return {"changed": runs or purged, "stopped": runs, "purged": purged}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    stack = Stack(params["directory"])
    if module.check_mode:
        module.exit_json(**foreseen(stack, params))
    try:
        if params["state"] == "started":
            module.exit_json(changed=start(stack, params))
        if params["state"] == "healthy":
            wait_until_well(stack, params["services"] or stack.services())
            module.exit_json(changed=False)
        stopped = stop(stack)
        if stack.socket.parent != stack.run:
            shutil.rmtree(stack.socket.parent, ignore_errors=True)
        purged = params["purge"] and stack.directory.exists()
        if purged:
            shutil.rmtree(stack.directory)
        module.exit_json(changed=stopped or purged, stopped=stopped, purged=purged)
    except UnwellError as sentence:
        module.fail_json(msg=str(sentence))


if __name__ == "__main__":
    main()
