#!/usr/bin/python
"""What must be true of the machine before anything is deployed, each with its remedy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.docker import LABEL, containers, docker
from ansible.module_utils.listeners import holder, listeners, parents, taken
from ansible.module_utils.supervision import Stack, UnwellError

DOCUMENTATION = """
module: preflight
short_description: Checks of the machine
description: Fails with one sentence for each thing that is wrong; returns where Java, PostgreSQL and monitoring are.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "runtime": {"type": "str", "required": True},
    "stack_name": {"type": "str", "required": True},
    "stack_directory": {"type": "path", "required": True},
    "port_offset": {"type": "str", "required": True},
    "port_defaults": {"type": "dict", "required": True},
    "ports": {"type": "dict", "required": True},
    "memory_mb": {"type": "int", "required": True},
    "disk_mb": {"type": "int", "required": True},
    "java": {"type": "int", "required": True},
    "docker_program": {"type": "str", "default": "docker"},
    "docker_names": {"type": "list", "elements": "str", "default": []},
}
# From here on the kernel gives ports to outgoing connections.
EPHEMERAL = 32768
# A container brings its own programs.
NOTHING_OF_THE_HOST: dict[str, Any] = {
    "java_home": "",
    "postgres_bin": "",
    "monitoring_programs": {},
    "monitoring_missing": "",
    "grafana": {"program": "", "home": "", "missing": ""},
}
# What watches the platform: Debian's package and program, and the name that its makers gave it.
MONITORING = {
    "prometheus": ("prometheus", "prometheus"),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "node_exporter": ("prometheus-node-exporter", "node_exporter"),
    "postgres_exporter": ("prometheus-postgres-exporter", "postgres_exporter"),
}


def wrong_names(params: dict[str, Any]) -> Iterator[str]:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,29}", params["stack_name"]):
        yield (
            f"The stack name '{params['stack_name']}' cannot be used: expected up to 30 of a-z, 0-9 and -, "
            "beginning with a letter. Choose another METEO_STACK."
        )
    if not re.fullmatch(r"[A-Za-z0-9/._@+-]+", params["stack_directory"]):
        yield (
            f"The directory '{params['stack_directory']}' has characters that the servers' settings cannot hold; "
            "set METEO_HOME to one of letters, digits, . _ - only."
        )
    if not re.fullmatch(r"\d+", params["port_offset"]):
        yield (
            f"The port offset '{params['port_offset']}' is not a number: expected 0 or more, such as 1000. "
            "Correct METEO_PORT_OFFSET."
        )
        return
    highest = max(params["port_defaults"][name] for names in params["ports"].values() for name in names)
    if highest + int(params["port_offset"]) >= EPHEMERAL:
        yield (
            f"The port offset {params['port_offset']} would push a port to {highest + int(params['port_offset'])}; "
            f"expected at most {EPHEMERAL - 1 - highest}, because from {EPHEMERAL} on ports serve outgoing "
            "connections. Choose a smaller METEO_PORT_OFFSET."
        )


def family(root: int | None, processes: dict[int, tuple[int, str]]) -> set[int]:
    """The supervisor of this stack and everything below it."""
    found = {root} if root in processes else set()
    while more := {pid for pid, (parent, _) in processes.items() if parent in found} - found:
        found |= more
    return {pid for pid in found if pid is not None}


def supervisor(params: dict[str, Any]) -> int | None:
    """Its process id, if it is still the process that wrote it down."""
    try:
        pid = int((Path(params["stack_directory"]) / "run" / "supervisord.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if "supervisor" in command_line(pid) else None


def command_line(pid: int) -> str:
    done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout


def taken_ports(params: dict[str, Any], own: set[int], processes: dict[int, tuple[int, str]]) -> Iterator[str]:
    held = listeners()
    for service, names in params["ports"].items():
        for name in names:
            port = params["port_defaults"][name] + int(params["port_offset"])
            pid = held.get(port)
            if port not in held or pid in own:
                continue
            yield taken(port, service, name, holder(pid, processes))


def too_little(params: dict[str, Any], running: bool, disk: Path, remedy: str) -> Iterator[str]:
    while not disk.exists():
        disk = disk.parent
    free = shutil.disk_usage(disk).free // 1_000_000
    if free < params["disk_mb"]:
        yield f"Only {free} MB are free on the disk of {disk}; expected {params['disk_mb']} MB. Free some, or {remedy}."
    memory = re.search(r"MemAvailable:\s+(\d+) kB", read("/proc/meminfo"))
    if memory and not running and int(memory[1]) // 1000 < params["memory_mb"]:
        yield (
            f"Only {int(memory[1]) // 1000} MB of memory are available; expected {params['memory_mb']} MB. "
            "Stop other programs, or lower preflight_memory_mb if you know that it is enough."
        )


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


def orphaned_data(params: dict[str, Any]) -> Iterator[str]:
    directory = Path(params["stack_directory"])
    secrets = directory / "secrets.yml"
    if (directory / "data" / "postgres" / "cluster" / "PG_VERSION").exists() and not secrets.exists():
        yield (
            f"The database in {directory}/data/postgres has no password file: expected {secrets}, which belongs to "
            "that data and cannot be made again. Restore it from a backup, or delete all data of this stack with "
            "./meteo down --purge."
        )


def java_homes() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home)
    if java := shutil.which("java"):
        yield Path(java).resolve().parent.parent
    for pattern in ("usr/lib/jvm/*", "opt/homebrew/opt/openjdk*", "usr/local/opt/openjdk*"):
        yield from sorted(Path("/").glob(pattern))


def java_version(home: Path) -> int:
    java = home / "bin" / "java"
    if not os.access(java, os.X_OK):
        return 0
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    number = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(number[1]) if number else 0


def find_java(wanted: int) -> tuple[str, str | None]:
    oldest = (0, "")
    for home in java_homes():
        version = java_version(home)
        if version >= wanted:
            return str(home), None
        oldest = max(oldest, (version, str(home)))
    found = f"only Java {oldest[0]} in {oldest[1]}" if oldest[0] else "no Java"
    return "", (
        f"There is {found} on this machine; expected Java {wanted} or newer. "
        f"Install it (Debian: apt-get install openjdk-{wanted}-jre-headless), or point JAVA_HOME to one."
    )


def find_postgres() -> tuple[str, str | None]:
    newest_first = sorted(
        Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: int(path.parent.name), reverse=True
    )
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    for place in places + newest_first:
        if all((place / program).exists() for program in ("initdb", "postgres", "pg_isready")):
            return str(place), None
    return "", (
        "There is no PostgreSQL server on this machine; expected initdb on the PATH or in /usr/lib/postgresql. "
        "Install it (Debian: apt-get install postgresql)."
    )


def find_monitoring() -> tuple[dict[str, str], str]:
    """The programs that watch the platform, and a sentence about those that are missing; it is no error."""
    found = {}
    for name, candidates in MONITORING.items():
        if path := next(filter(None, map(shutil.which, candidates)), None):
            found[name] = path
    missing = [MONITORING[name][0] for name in MONITORING if name not in found]
    if not missing:
        return found, ""
    return found, (
        f"Nothing watches this stack: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. "
        f"Install what is missing (Debian: apt-get install {' '.join(missing)}), then run ./meteo up; "
        "or leave monitoring out with -e monitoring_enabled=false."
    )


def find_grafana() -> dict[str, str]:
    """Grafana's program and the directory of its own files, both empty with a sentence where it is not installed."""
    for path in filter(None, map(shutil.which, ("grafana-server", "grafana"))):
        # The packages put both into places of their own; in the archive one lies below the other.
        for home in (Path("/usr/share/grafana"), *Path(path).resolve().parents[1:3]):
            if (home / "conf" / "defaults.ini").is_file():
                return {"program": path, "home": str(home), "missing": ""}
    return {
        "program": "",
        "home": "",
        "missing": "Nothing shows the dashboards: Grafana is not among this system's packages and not installed. "
        "Install grafana-server 10.4 or newer, then run ./meteo up; docs/dashboards.md shows what they look like.",
    }


def wrong_docker(params: dict[str, Any]) -> Iterator[str]:
    """What keeps this stack from being put up as containers."""
    program = params["docker_program"]
    if missing := list(no_docker(program)):
        yield from missing
        return
    yield from no_builder(program)
    yield from foreign(program, params["docker_names"], params["stack_name"])
    running = bool(containers(program, params["stack_name"]))
    # Docker Desktop names a directory of its own machine: then the host's root is looked at, on the same disk or not.
    place = Path(docker(program, "info", "--format", "{{.DockerRootDir}}").strip())
    yield from too_little(params, running, place, "give Docker a larger one (data-root in /etc/docker/daemon.json)")


def no_builder(program: str) -> Iterator[str]:
    """Whether images can be built: since Docker 23 the builder is a package of its own."""
    major = docker(program, "version", "--format", "{{.Client.Version}}").partition(".")[0]
    asked = subprocess.run([program, "buildx", "version"], capture_output=True, check=False)
    if asked.returncode and major.isdigit() and int(major) >= 23:
        yield (
            "Docker has no buildx, which builds images; install it (Debian, Ubuntu: apt-get install docker-buildx; "
            "with Docker's own packages: docker-buildx-plugin)."
        )


def foreign(program: str, names: list[str], stack: str) -> Iterator[str]:
    """Containers and volumes that have the names of ours and are somebody else's: they would be replaced."""
    for kind, name, listing in (("container", ".Names", ("ps", "--all")), ("volume", ".Name", ("volume", "ls"))):
        told = docker(program, *listing, "--format", f'{{{{{name}}}}}\t{{{{.Label "{LABEL}"}}}}').splitlines()
        owners = dict(line.split("\t") for line in told)
        if theirs := sorted(each for each in names if owners.get(each, stack) != stack):
            yield (
                f"There is a {kind} {', '.join(theirs)} that the stack {stack} did not make. Remove or rename it, or "
                "deploy under another name: -e stack_name=lab -e port_offset=1200."
            )


def no_docker(program: str) -> Iterator[str]:
    """What keeps containers from being started here."""
    if os.geteuid() != 0:
        yield "The runtime docker needs root: run the playbook by sudo, or as root."
    if shutil.which(program) is None:
        yield "There is no Docker on this machine; install it (Debian: apt-get install docker.io)."
        return
    said = subprocess.run([program, "info"], capture_output=True, text=True, check=False)
    if said.returncode:
        yield f"Docker does not answer ({said.stderr.strip()}); start it: systemctl start docker."


def needed_ports(ports: dict[str, list[str]]) -> dict[str, list[str]]:
    """The ports without those of programs that are not installed: what else listens there is in nobody's way."""
    unused = set() if find_grafana()["program"] else {"grafana"}
    if find_monitoring()[1]:
        unused |= {"prometheus", "alertmanager", "node-exporter", "postgres-exporter"}
    return {name: needed for name, needed in ports.items() if name not in unused}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    wrong = list(wrong_names(params))
    if params["runtime"] == "docker":
        try:
            wrong += wrong_docker(params)
        except UnwellError as sentence:
            wrong.append(str(sentence))
        if wrong:
            module.fail_json(msg="\n".join(wrong))
        module.exit_json(changed=False, **NOTHING_OF_THE_HOST)
    java_home, no_java = find_java(params["java"])
    postgres_bin, no_postgres = find_postgres()
    wrong += [sentence for sentence in (no_java, no_postgres) if sentence]
    wrong += orphaned_data(params)
    if params["port_offset"].isdigit():
        processes = parents()
        own = family(supervisor(params), processes)
        # Left behind by a supervisor that was killed; starting the stack ends them first.
        own.update(Stack(params["stack_directory"]).strays())
        wrong += taken_ports({**params, "ports": needed_ports(params["ports"])}, own, processes)
        wrong += too_little(params, bool(own), Path(params["stack_directory"]), "set METEO_HOME to a larger disk")
    if wrong:
        module.fail_json(msg="\n".join(wrong))
    programs, missing = find_monitoring()
    module.exit_json(
        changed=False,
        java_home=java_home,
        postgres_bin=postgres_bin,
        monitoring_programs=programs,
        monitoring_missing=missing,
        grafana=find_grafana(),
    )


if __name__ == "__main__":
    main()
