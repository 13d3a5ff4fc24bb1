"""What the roles and inventories say of themselves: variables.md and ports.md."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
ANSIBLE = ROOT / "ansible"
ALL, DOCKER = ANSIBLE / "group_vars" / "all", ANSIBLE / "group_vars" / "docker.yml"
PORTS = ALL / "ports.yml"
DESCRIPTIONS = ANSIBLE / "meta" / "argument_specs.yml"
"""What the variables of group_vars mean, in the schema of a role's own."""
STAND_INS = ROOT / "tests" / "deployment" / "containers.py"
WIDTH = 64
"""Of a default in its cell; what is longer is a link to its file."""
FIRST_EPHEMERAL = 32768
ENVIRONMENT = re.compile(r"{{ lookup\('ansible\.builtin\.env', '(\w+)'\) or '?(\w+)'? }}")
KEPT_FREE = "kept free for "

VARIABLES_HEAD = """\
# Variables of the deployment

For one run: `-e NAME=VALUE`, to `./meteo up` or to `ansible-playbook`. To keep a variable, write it into
`ansible/host_vars/embedded.yml`, for containers into `ansible/host_vars/dockerhost.yml`: it outranks what is below. The
[settings](settings.md) of our services are no variables: they come from `.env`.

First come the variables of the whole platform, then each role's own. A default in braces is another variable; where
it is computed from several, or is long, the cell leads to its file. An empty cell under *containers* means: as with
processes. Most deployments need the first two sections and [these variables](deployment.md#change-something); the
rest follows from them.
"""
IMAGES_HEAD = """
## Images

*Exercised* says what the tests run. **No image of others was ever run by them**: one is made from Debian's package
instead, with the same programs, users and directories.

| image | default | services | exercised |
|---|---|---|---|
"""
PORTS_HEAD = """\
# Ports

All ports are in [one table](../ansible/group_vars/all/ports.yml), so that no two meet with everything switched on.
They are TCP. `port_offset`, or `METEO_PORT_OFFSET` for the first `./meteo up`, is added to every one of them, inside
containers too; `./meteo` remembers it, `ansible-playbook` is given it each time. It is at most {most:,}, so that every
port stays below {ephemeral:,}, where the kernel begins to give ports to outgoing connections.

- *Processes* listen on `bind_address`, `127.0.0.1` unless it is changed. Preflight refuses to deploy when another
  program has a port that the stack needs.
- *Containers* listen in the stack's own network. A port that is *published* is open on the host too, at the same
  number of `bind_address`; Docker refuses one that is taken. The others can be reached only from the network.
- A running job on YARN opens more, at numbers that the kernel gives: its master and its tasks speak to each other.

*Variable* is the name in the table, where a number is changed. *With* names the switch without which nothing listens.

| port | service | variable | what for | containers | with |
|---|---|---|---|---|---|
"""
PORTS_TAIL = """
Kept free, for what may come; nothing listens there:

| port | variable | what for |
|---|---|---|
"""


@dataclass(frozen=True)
class Port:
    """A port of the table, with what stands behind it there."""

    name: str
    number: int
    meaning: str


def read(path: Path) -> dict[str, Any]:
    """Return a file of YAML, empty when there is none."""
    return (yaml.safe_load(path.read_text("utf-8")) if path.exists() else None) or {}


@cache
def set_for_all() -> dict[str, tuple[Any, Path]]:
    """Return value and file of each variable that group_vars gives to every host."""
    return {name: (value, path) for path in sorted(ALL.glob("*.yml")) for name, value in read(path).items()}


def roles() -> Iterator[tuple[str, Path, dict[str, Any], str]]:
    """Yield name, directory, described options and purpose of each role that has options."""
    for directory in sorted((ANSIBLE / "roles").iterdir()):
        specs = read(directory / "meta" / "argument_specs.yml")["argument_specs"]
        options = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
        if options:
            yield (
                directory.name,
                directory,
                options,
                " ".join(f"{spec['short_description']}." for spec in specs.values()),
            )


def described() -> dict[str, dict[str, Any]]:
    """Return what is written about each variable of group_vars, there or by a role that has it too."""
    entries = read(DESCRIPTIONS)["argument_specs"].values()
    own = {name: option for _, _, options, _ in roles() for name, option in options.items()}
    return own | {name: option for entry in entries for name, option in entry["options"].items()}


def set_variables() -> set[str]:
    """Return the names of all variables that group_vars sets."""
    return set(set_for_all()) | set(read(DOCKER))


def variables_page(made_by: str) -> str:
    """Return docs/variables.md; `made_by` is its first line."""
    parts = [made_by + VARIABLES_HEAD]
    of_all, of_containers = set_for_all(), read(DOCKER)
    for name, entry in read(DESCRIPTIONS)["argument_specs"].items():
        alone = name == "containers"
        head = (
            "variable",
            "type",
            "containers" if alone else "processes",
            *(() if alone else ("containers",)),
            "meaning",
        )
        rows = []
        for variable, option in entry["options"].items():
            cells = [_default(of_containers[variable], DOCKER)] if variable in of_containers else [""]
            if not alone:
                cells.insert(0, _default(*of_all[variable]))
            rows.append((f"`{variable}`", option["type"], *cells, option["description"]))
        parts.append(f"\n## {entry['short_description']}\n\n{_table(head, rows)}")
    parts.append(_images(of_containers))
    for name, directory, options, purpose in roles():
        parts.append(f"\n## Role {name}\n\n{purpose}\n\n{_of_role(directory, options)}")
    return "".join(parts)


def _of_role(directory: Path, options: Mapping[str, Mapping[str, Any]]) -> str:
    path = directory / "defaults" / "main.yml"
    defaults, of_all, of_containers = read(path), set_for_all(), read(DOCKER)
    rows = []
    for name, option in options.items():
        cell = "required" if option.get("required") else ""
        if name in defaults:
            cell = _default(defaults[name], path)
        elif name in of_all:
            cell = f"{_default(*of_all[name])}, for the whole platform"
        elif name in of_containers:
            cell = _default(of_containers[name], DOCKER)
        if name in of_containers and name in defaults:
            cell += f"; containers: {_default(of_containers[name], DOCKER)}"
        choices = f" One of {', '.join(map(str, option['choices']))}." if "choices" in option else ""
        rows.append((f"`{name}`", option["type"], cell, option["description"] + choices))
    return _table(("variable", "type", "default", "meaning"), rows)


def _images(of_containers: Mapping[str, Any]) -> str:
    """The images of containers, and which of them the tests run."""
    stand_ins, images = _stand_ins(), of_containers["docker_images"]
    rows = [
        (
            f"`docker_own_images.{name}`",
            f"`meteo/{name}:` and a hash",
            ", ".join(service for service, image in images.items() if f"docker_own_images.{name} " in image),
            "yes, built from a base image by debootstrap",
        )
        for name in of_containers["docker_own_images"]
    ]
    for variable in (name for name in of_containers if name.startswith("docker_") and name.endswith("_image")):
        users = [service for service, image in images.items() if f"{{{{ {variable} }}}}" in image]
        name = variable.removeprefix("docker_").removesuffix("_image").replace("_", "-")
        said = f"no; Debian's `{stand_ins[name]}` stands in for it" if name in stand_ins else "no; switched off there"
        if not users:
            users, said = ["all that are built here"], "no; debootstrap makes a stand-in of the same release"
        rows.append((f"`{variable}`", f"`{of_containers[variable]}`", ", ".join(users), said))
    return IMAGES_HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _stand_ins() -> dict[str, str]:
    for node in ast.parse(STAND_INS.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STAND_INS":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise LookupError(f"{STAND_INS} names no STAND_INS")


def ports() -> list[Port]:
    """Return the table of ports; a port behind which nothing stands has no meaning."""
    lines = re.findall(r"^  (\w+): (\d+)(?:  # (.+))?$", PORTS.read_text("utf-8"), re.MULTILINE)
    return [Port(name, int(number), meaning) for name, number, meaning in lines]


def ports_page(made_by: str) -> str:
    """Return docs/ports.md; `made_by` is its first line."""
    table = {port.name: port for port in ports()}
    published = _published()
    used = []
    for service, names, switch in _listeners():
        for port in map(table.__getitem__, names):
            where = "published" if published[port.name] else "in the network"
            used.append((str(port.number), service, f"`{port.name}`", port.meaning, where, switch))
    free = [
        (str(port.number), f"`{port.name}`", port.meaning.removeprefix(KEPT_FREE))
        for port in table.values()
        if port.name not in published
    ]
    highest = max(table[name].number for name in published)
    head = PORTS_HEAD.format(most=FIRST_EPHEMERAL - 1 - highest, ephemeral=FIRST_EPHEMERAL)
    rows = ["".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in part) for part in (used, free)]
    return made_by + head + rows[0] + PORTS_TAIL + rows[1]


def _listeners() -> Iterator[tuple[str, list[str], str]]:
    """Yield each service, the names of its ports, and what must be switched on, as preflight has it."""
    defaults = read(ANSIBLE / "roles" / "preflight" / "defaults" / "main.yml")
    switches = dict(re.findall(r"(preflight_\w+_ports) if (\w+) \| bool", defaults["preflight_ports"]))
    for table, services in defaults.items():
        if table.endswith("_ports") and isinstance(services, dict):
            for service, names in services.items():
                yield service, names, _code(switches.get(table, ""))


def _published() -> dict[str, bool]:
    """Return the ports that roles open, by their names in the table, and whether the host has them too."""
    found = {}
    roles = ANSIBLE / "roles"
    for path in sorted((*roles.glob("*/tasks/*.yml"), *roles.glob("*/vars/*.yml"))):
        for name, more in re.findall(r'bind: "{{ ports\.(\w+) }}"(, publish: )?', path.read_text("utf-8")):
            found[name] = bool(more)
    return found


def _default(value: Any, path: Path) -> str:
    """A default as a cell: its value, or a link to where a longer one is written."""
    link = f"](../{path.relative_to(ROOT)})"
    if isinstance(value, str):
        # A template of one variable says which.
        text = ENVIRONMENT.sub(r"\1, else \2", " ".join(value.split()))
        if len(text) <= WIDTH and "lookup(" not in text and "{%" not in text:
            return _code(_escaped(text)) or '`""`'
        return f"[computed{link}"
    if isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False)
        if len(text) <= WIDTH:
            return _code(_escaped(text))
        return f"[{len(value)} {'entry' if len(value) == 1 else 'entries'}{link}"
    return _code(json.dumps(value))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(line)} |\n" for line in (head, *rows)]
    return "".join([lines[0], "|---" * len(head), "|\n", *lines[1:]])


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
