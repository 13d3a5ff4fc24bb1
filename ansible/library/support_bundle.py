#!/usr/bin/python
"""One file with what somebody needs to understand a problem of a stack, and none of its secrets."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml
from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.masking import MASK, Masks, assignments, secrets_in_tree, secrets_of, shown_values
from ansible.module_utils.supervision import Stack

DOCUMENTATION = """
module: support_bundle
short_description: A stack's configuration, versions, logs and state in one file
description: Reads what is there, also while servers are down, and masks every secret; changes nothing of the stack.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "file": {"type": "path", "required": True},
    "log_mb": {"type": "int", "required": True},
    "stack_name": {"type": "str", "required": True},
    "stack_directory": {"type": "path", "required": True},
    "home": {"type": "path", "required": True},
    "project": {"type": "path", "required": True},
    "address": {"type": "str", "required": True},
    "jars": {"type": "dict", "required": True},
    "docker_program": {"type": "str", "default": "docker"},
}
COMMAND_SECONDS = 180
"""For `status` and `doctor`, which ask every server and wait for those that are away."""
FILE_BYTES = 1_000_000
"""Of a file of configuration; ours have a few thousand."""
LAUNCHER = {"METEO_HOME", "METEO_STACK", "METEO_PORT_OFFSET", "METEO_PROJECT", "METEO_LISTEN_ADDRESS"}
VERSIONED = {"kafka": "-version"} | dict.fromkeys(
    ("postgres", "prometheus", "alertmanager", "node-exporter", "postgres-exporter", "grafana"), "--version"
)
"""Services whose program tells its version, Kafka's that of Java; those of jars and packages are in their names."""
WITH_JARS = {"kafka": "kafka", "hadoop": "namenode", "hbase": "hbase-master"}
OF_EVERY_CONTAINER = {"CONFIG_HASH", "PATH", "LANG", "TZ"}
SYSTEM = (("uname", "-a"), ("nproc",), ("uptime",), ("free", "-m"), ("df", "-h", "-T"), ("date", "+%FT%T%z"))


class Bundle:
    """What was found, by the name that it has in the file."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.stack = Stack(params["stack_directory"])
        self.texts: dict[str, str] = {}
        self.missing: list[str] = []
        self.index = self._index()
        client = self.index.get("client") or {}
        self.docker = str(client.get("program") or params["docker_program"])
        self.containers = {
            name: entry["container"] for name, entry in self.index.get("services", {}).items() if "container" in entry
        }
        self.project, self.home = Path(params["project"]), Path(params["home"])
        self.secrets_file = Path(self.index.get("secrets_file") or self.stack.directory / "secrets.yml")
        self.masks = Masks(self.secrets())

    def _index(self) -> dict[str, Any]:
        try:
            return self.stack.description()
        except (OSError, ValueError):
            return {}

    def read(self, path: Path, limit: int = FILE_BYTES) -> str:
        """The end of a file; empty, and noted, where it cannot be read."""
        try:
            with path.open("rb") as file:
                return end_of(file, limit)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.missing.append(f"{path}: {error.strerror}")
            return ""

    def add(self, name: str, text: str) -> None:
        """Keep a text without its secrets; an empty one is not there."""
        if text:
            self.texts[name] = self.masks(text)

    def secrets(self) -> set[str]:
        """Every secret of the stack and of who asks: passwords, keys, and what holds one in the middle."""
        found = {str(value) for value in self.tree(self.secrets_file).values()}
        texts = [self.read(path) for path in (*self.settings_files(), *self.scripts())]
        pairs = [pair for text in texts for pair in assignments(text)]
        for name, value in [*pairs, *os.environ.items()]:
            found.update(secrets_of(name, value))
        for path in self.variables():
            found.update(secrets_in_tree(self.tree(path)))
        alerts = self.tree(self.stack.directory / "services" / "alertmanager" / "alertmanager.yml")
        found.update(secrets_in_tree(alerts.get("receivers", [])))
        return found

    def tree(self, path: Path) -> dict[str, Any]:
        """A file of YAML; empty where it is none, or is encrypted."""
        try:
            found = yaml.safe_load(self.read(path))
        except yaml.YAMLError:
            self.missing.append(f"{path}: not readable as YAML")
            return {}
        return found if isinstance(found, dict) else {}

    def settings_files(self) -> tuple[Path, Path]:
        return self.project / ".env", self.stack.directory / "settings.env"

    def scripts(self) -> list[Path]:
        return sorted(self.stack.directory.glob("services/*/run"))

    def variables(self) -> list[Path]:
        """What a person has set beside the playbook's own variables."""
        ansible = self.project / "ansible"
        places = ("host_vars", "inventory/group_vars", "inventory/host_vars")
        return [path for place in places for path in sorted(ansible.glob(f"{place}/**/*.yml"))]

    def configuration(self) -> None:
        """What was deployed, and from which settings and variables."""
        known = settings() | LAUNCHER
        of_user, of_stack = self.settings_files()
        self.add("configuration/user.env", shown_values(self.read(of_user), known))
        self.add("configuration/settings.env", self.read(of_stack))
        here = "".join(f"{name}={value}\n" for name, value in sorted(os.environ.items()) if name in known)
        self.add("configuration/environment.env", shown_values(here, known))
        self.add("configuration/secrets.yml", "".join(f"{name}: {MASK}\n" for name in self.tree(self.secrets_file)))
        self.add("stack.json", self.read(self.stack.index))
        for path in self.variables():
            # Of a file that cannot be understood its secrets are not known.
            if tree := self.tree(path):
                text = json.dumps(tree, indent=2, ensure_ascii=False, default=str)
                self.add(f"configuration/{path.relative_to(self.project)}", text)
        below = self.stack.directory
        for pattern in ("services/**/*", "run/*.conf", "run/conf.d/*.conf"):
            for path in sorted(below.glob(pattern)):
                if path.is_file() and path.stat().st_size <= FILE_BYTES:
                    text = MASK if path.suffix == ".password" else self.read(path)
                    self.add(f"configuration/{path.relative_to(below)}", text)

    def versions(self) -> None:
        """Of our code, of Python, the servers and the system."""
        git = ("git", "-c", f"safe.directory={self.project}", "-C", str(self.project))
        stamp = f"installed: {self.read(self.home / 'venv' / '.stamp')}\n"
        self.add(
            "versions/code.txt", stamp + said(*git, "log", "-1", "--format=%H %cI") + said(*git, "status", "--short")
        )
        installed = {f"{each.metadata['Name']} {each.version}" for each in metadata.distributions()}
        python = said(str(self.home / "venv" / "bin" / "python"), "--version")
        self.add("versions/python.txt", "\n".join([python, *sorted(installed, key=str.lower), ""]))
        jars = [self.inside(WITH_JARS[name], "ls", f"{place}/lib") for name, place in self.params["jars"].items()]
        self.add("versions/jars.txt", "\n".join(jars))
        found = [self.inside(*program) for program in self.programs()]
        if self.containers:
            form = "{{.Name}} {{.Config.Image}} {{.Image}}"
            found += [said(self.docker, "inspect", "--format", form, each) for each in self.containers.values()]
            found += [said(self.docker, "version"), said(self.docker, "info")]
        self.add("versions/servers.txt", "\n".join(found))
        release = self.read(Path("/etc/os-release"))
        self.add("versions/system.txt", "\n".join([release, *(said(*argv) for argv in SYSTEM)]))

    def programs(self) -> Iterator[tuple[str, str, str]]:
        """The programs that tell their version: whose each is, where it is there, and how it is asked."""
        for path in self.scripts():
            found = re.search(r"^exec (\S+)", self.read(path), re.MULTILINE)
            if found and path.parent.name in VERSIONED:
                yield path.parent.name, found[1], VERSIONED[path.parent.name]

    def inside(self, service: str, *argv: str) -> str:
        """What a program says where the service runs."""
        return said(*((self.docker, "exec", self.containers[service]) if service in self.containers else ()), *argv)

    def logs(self) -> None:
        """The end of what each service has written."""
        limit = self.params["log_mb"] * 1_000_000
        for path in sorted(self.stack.logs.glob("*.log")):
            text = self.read(path, limit)
            # It was rotated a moment ago.
            for older in (path.with_name(f"{path.name}.{number}") for number in (1, 2, 3)):
                if len(text) < limit and older.exists():
                    text = self.read(older, limit - len(text)) + text
            self.add(f"logs/{path.name}", text)
        for name, container in self.containers.items():
            with tempfile.TemporaryFile() as file:
                call([self.docker, "logs", "--timestamps", container], file)
                self.add(f"logs/{name}.log", end_of(file, limit))

    def state(self) -> None:
        """What the platform says of itself, and what runs it says of its services."""
        with ThreadPoolExecutor(2) as pool:
            for name, (text, about) in zip(("status", "doctor"), pool.map(self.ask, ("status", "doctor")), strict=True):
                self.add(f"status/{name}.json", text)
                self.add(f"status/{name}.txt", about)
        if self.containers:
            self.state_of_containers()
            return
        configuration = self.stack.run / "supervisor.conf"
        if configuration.exists():
            program = str(self.home / "venv" / "bin" / "supervisorctl")
            self.add("status/supervisor.txt", said(program, "-c", str(configuration), "status"))
        listed = said("ps", "-A", "-ww", "-o", "pid,ppid,user,rss,etime,stat,args").splitlines()
        mine = [line for line in listed[1:] if f"{self.stack.directory}/" in line]
        self.add("status/processes.txt", "\n".join([*listed[:1], *mine, ""]))

    def state_of_containers(self) -> None:
        """What Docker says of the stack's containers and network, and of no others."""
        known = settings() | LAUNCHER | OF_EVERY_CONTAINER
        running = []
        for name, container in self.containers.items():
            text = output(self.docker, "inspect", container)
            try:
                found = json.loads(text)
            except ValueError:
                self.add(f"status/inspect/{name}.txt", text)
                continue
            for each in found:
                each["Config"]["Env"] = shown_values("\n".join(each["Config"]["Env"] or ()), known).splitlines()
                running += [container] if each["State"]["Running"] else []
            self.add(f"status/inspect/{name}.json", json.dumps(found, indent=2))
        if running:
            self.add("status/memory.txt", said(self.docker, "stats", "--no-stream", *running))
        if "client" in self.index:
            self.add("status/network.json", output(self.docker, "network", "inspect", self.index["client"]["network"]))

    def ask(self, command: str) -> tuple[str, str]:
        """What a command of the platform answers as JSON, and how it ended."""
        program = self.home / "venv" / "bin" / "meteo"
        environment = {
            **os.environ,
            "METEO_HOME": str(self.home),
            "METEO_PROJECT": str(self.project),
            "METEO_STACK": self.params["stack_name"],
        }
        try:
            ran = subprocess.run(
                [program, command, "--json"],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return "", f"./meteo {command} --json: {error}\n"
        return ran.stdout, f"./meteo {command} --json exits with {ran.returncode}\n{ran.stderr}"

    def alerts(self) -> None:
        """What Prometheus raises, and what it cannot read; nothing where it does not answer."""
        port = self.index.get("services", {}).get("prometheus", {}).get("ports", {}).get("http")
        for what in ("alerts", "targets") if port else ():
            address = f"http://{self.params['address']}:{port}/api/v1/{what}"
            try:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(address, timeout=10) as answer:
                    self.add(f"alerts/{what}.json", answer.read().decode("utf-8", "replace"))
            except OSError as error:
                self.missing.append(f"{address}: {getattr(error, 'reason', error)}")

    def collect(self) -> None:
        """Look at everything; one thing that cannot be had does not keep the others away."""
        for part in (self.configuration, self.versions, self.logs, self.state, self.alerts):
            try:
                part()
            # Whatever is broken is why somebody wants this file.
            except Exception as error:
                self.missing.append(f"{part.__name__}: {type(error).__name__}: {error}")
        made = datetime.now(UTC).isoformat(timespec="seconds")
        about = [f"The stack {self.params['stack_name']}, looked at {made}. {MASK} stands for what is secret.", ""]
        about += [f"{len(text.encode()):>10}  {name}" for name, text in sorted(self.texts.items())]
        if self.missing:
            about += ["", "What could not be had:", *sorted(set(self.missing))]
        self.add("contents.txt", "\n".join([*about, ""]))

    def write(self) -> None:
        """Make the file as a whole, for its owner only."""
        path = Path(self.params["file"])
        part = path.with_name(f".{path.name}.part")
        try:
            part.touch(mode=0o600)
            with tarfile.open(part, "w:gz") as archive:
                for name, text in sorted(self.texts.items()):
                    data = text.encode()
                    entry = tarfile.TarInfo(f"{path.name.partition('.')[0]}/{name}")
                    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                    archive.addfile(entry, io.BytesIO(data))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def end_of(file: IO[bytes], limit: int) -> str:
    """The last bytes of a file, from the beginning of a line: half a secret would not be known for one."""
    start = max(0, file.seek(0, os.SEEK_END) - limit)
    file.seek(start)
    if start:
        file.readline()
    return file.read().decode("utf-8", "replace")


def settings() -> set[str]:
    """The names of the settings, whose values may be shown unless they are secret by their name."""
    try:
        from meteo_common.settings import Settings
    except ImportError:
        return set()
    return {name.upper() for name in Settings.model_fields}


def said(*argv: str) -> str:
    """What a program prints, under its command line; a sentence when there is none."""
    return f"$ {' '.join(argv)}\n{output(*argv)}\n"


def output(*argv: str) -> str:
    """What a program prints, on both of its outputs; how it ended where that is not well."""
    with tempfile.TemporaryFile() as file:
        code = call(list(argv), file)
        file.seek(0)
        text = file.read().decode("utf-8", "replace")
    return text + (f"exits with {code}\n" if isinstance(code, int) and code else code or "")


def call(argv: list[str], file: Any) -> int | str:
    """Run a program with all that it prints going to a file; its exit code, or what kept it from one."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, timeout=60, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    path = Path(module.params["file"])
    if path.exists():
        module.fail_json(msg=f"{path} is there already; name another file, or remove it.")
    bundle = Bundle(module.params)
    if bundle.secrets_file.exists() and not os.access(bundle.secrets_file, os.R_OK):
        module.fail_json(
            msg=f"{bundle.secrets_file} cannot be read, so its secrets could not be masked: run this as root, or as "
            "the person whose stack it is."
        )
    bundle.collect()
    try:
        bundle.write()
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be written ({error.strerror}); name a file where there is room.")
    module.exit_json(changed=False, files=len(bundle.texts), bytes=path.stat().st_size)


if __name__ == "__main__":
    main()
