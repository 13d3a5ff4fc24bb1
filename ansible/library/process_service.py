#!/usr/bin/python
"""Make one service of a stack what its description says: its files, its process, its place in stack.json."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import rendering
from ansible.module_utils.supervision import Stack, UnwellError, wait_until_well

DOCUMENTATION = """
module: process_service
short_description: A service as a process under the stack's supervisor
description: Restarts the service when, and only when, something of its description or its files changed.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {**rendering.ARGUMENTS, "stop": {"type": "dict", "default": {}}}
ALIVE = ("RUNNING", "STARTING", "BACKOFF")


class Service:
    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.name: str = wanted["name"]
        self.stack = Stack(wanted["stack_directory"])
        self.home = self.stack.directory / "services" / self.name
        self.data = self.stack.directory / "data" / self.name
        self.program = self.stack.programs / f"{self.name}.conf"

    def texts(self) -> dict[Path, tuple[str, int]]:
        """Text and permissions of each of its files."""
        texts = rendering.texts(self.home, self.wanted)
        if self.wanted["argv"]:
            texts[self.home / "run"] = (self.wrapper(), 0o700)
            texts[self.program] = (self.section(texts), 0o600)
        return texts

    def missing(self) -> list[Path]:
        """Its data directories that are not there."""
        wanted = [self.data / directory for directory in ["", *self.wanted["dirs"]]]
        return [path for path in wanted if not path.is_dir()]

    def render(self, texts: dict[Path, tuple[str, int]]) -> list[str]:
        """Write every file of the service; the paths that changed."""
        made = self.missing()
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        return [*map(str, made), *rendering.converge(self.home, texts)]

    def wrapper(self) -> str:
        """A script that is the service's process, and that an operator can read and run."""
        lines = rendering.head(str(self.data), self.wanted)
        return "\n".join([*lines, f"exec {shlex.join(self.wanted['argv'])}", ""])

    def section(self, texts: dict[Path, tuple[str, int]]) -> str:
        stop = self.wanted["stop"]
        digest = rendering.digest(texts, self.wanted["fingerprint"])
        settings = {
            "command": f"/bin/sh {self.home / 'run'}",
            "environment": f'CONFIG_HASH="{digest}"',
            # The playbook starts services in the order of their needs; the supervisor only keeps them up.
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "5",
            "startretries": "20",
            "stopsignal": stop.get("signal") or "TERM",
            "stopwaitsecs": str(stop.get("timeout") or 10),
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(self.stack.log(self.name)),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "3",
        }
        body = "".join(f"{key}={value.replace('%', '%%')}\n" for key, value in settings.items())
        return f"[program:{self.name}]\n{body}"

    def register(self) -> None:
        """Tell stack.json what runs; a set of files without a program is nothing to look at there."""
        told = {name: self.wanted[name] for name in ("ports", "urls", "health", "needs")}
        self.stack.register(self.name, {**told, "log": str(self.stack.log(self.name))} if self.wanted["argv"] else None)

    def prepare(self) -> bool:
        """Run once what the data directory needs before the first start."""
        done = False
        for step in self.wanted["prepare"]:
            if Path(step["creates"]).exists():
                continue
            given = {**self.wanted["env"], **self.wanted["secrets"]}
            environment = {**os.environ, **{key: str(value) for key, value in given.items()}}
            ran = subprocess.run(
                step["argv"], cwd=self.data, env=environment, capture_output=True, text=True, check=False
            )
            if ran.returncode:
                output = "\n".join((ran.stdout + ran.stderr).splitlines()[-40:])
                raise UnwellError(f"{self.name}: {step['argv'][0]} failed while preparing {self.data}:\n{output}")
            done = True
        return done

    def converge(self, changed: list[str]) -> bool:
        """Start the process, or restart it when its description differs from what runs."""
        calls = self.stack.supervisor()
        if calls is None:
            raise UnwellError("The supervisor of this stack does not answer.")
        _, outdated, _ = calls.reloadConfig()[0]
        state = self.state(calls)
        if state in ALIVE and self.name not in outdated:
            return False
        wait_until_well(self.stack, self.wanted["needs"])
        self.remove(calls, state)
        if self.prepare():
            changed.append("data")
        calls.addProcessGroup(self.name)
        calls.startProcess(self.name, False)
        return True

    def state(self, calls: Any) -> str | None:
        try:
            return str(calls.getProcessInfo(self.name)["statename"])
        except xmlrpc.client.Fault:
            return None

    def remove(self, calls: Any, state: str | None) -> None:
        if state is None:
            return
        calls.stopProcessGroup(self.name)
        while True:
            try:
                calls.removeProcessGroup(self.name)
                return
            except xmlrpc.client.Fault:  # a child of it is still ending
                time.sleep(0.2)

    def stands_still(self) -> bool:
        """Whether it would be started though none of its files changes."""
        calls = self.stack.supervisor()
        return bool(self.wanted["argv"]) and (calls is None or self.state(calls) not in ALIVE)

    def present(self) -> bool:
        """Whether there is something to take away."""
        calls = self.stack.supervisor()
        return self.program.exists() or bool(calls and self.state(calls))

    def absent(self) -> bool:
        present = self.present()
        calls = self.stack.supervisor()
        if calls:
            self.remove(calls, self.state(calls))
        self.program.unlink(missing_ok=True)
        shutil.rmtree(self.home, ignore_errors=True)
        self.stack.register(self.name, None)
        if calls:
            calls.reloadConfig()
        return present


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    service = Service(module.params)
    try:
        if module.params["state"] == "absent":
            module.exit_json(changed=service.present() if module.check_mode else service.absent())
        texts = service.texts()
        diff = {"prepared": rendering.differences(service.home, texts, module.params["secrets"])}
        if module.check_mode:
            changed_files = bool(diff["prepared"] or service.missing())
            module.exit_json(changed=changed_files or service.stands_still(), diff=diff)
        changed = service.render(texts)
        service.register()
        started = bool(module.params["argv"]) and service.converge(changed)
        module.exit_json(changed=bool(changed) or started, files=changed, started=started, diff=diff)
    except UnwellError as sentence:
        module.fail_json(msg=str(sentence))


if __name__ == "__main__":
    main()
