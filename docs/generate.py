"""Write what the code itself says: settings.md, commands.md, metrics.md, variables.md, ports.md, ../.env.example, the
message's schema, the settings that the deployed producer gets, and the tables of sources.md and backfill.md.

uv run docs/generate.py            # writes them; tests/test_docs.py fails while one of them is stale
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from typer import Typer
from typer.models import ArgumentInfo, OptionInfo

from costs import with_tables
from deployed import ports_page, variables_page
from meteo_cli.main import app
from meteo_cli.tools import TOOLS
from meteo_common.allowances import Budget
from meteo_common.durations import parse_duration
from meteo_common.schema import schema_text
from meteo_common.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("common", "producer", "consumer", "Hadoop", "page", "cli")
WITH_TABLES = ("sources.md", "backfill.md")
MADE_BY = "<!-- Made by docs/generate.py from the code; change it there, then run it. -->\n"

SETTINGS_HEAD = """\
# Settings

A command takes a setting from the first of these that has it:

1. a flag of the command, such as `--city`;
2. the environment variable of the setting's name;
3. `.env` in the checkout ([.env.example](../.env.example) lists every name);
4. the stack's own `settings.env`, which `./meteo up` writes: that stack's addresses, password and time zone;
5. the default below.

An empty value counts as not set. A wrong value stops the command with one sentence and exit code 2.

The deployed services do not read `.env`. `./meteo up` gives each of them the settings that it needs and restarts those
whose settings changed. So after editing `.env`, run `./meteo up`. The addresses of servers are not among them: the
services of a stack talk to the servers of that stack, whatever `.env` says.

`WEATHER_TIMEZONE` is fixed by the first export: afterwards another zone is refused, because every day's partition was
made with the first one.
"""
SETTINGS_TAIL = """
## Of the launcher

These say which stack a command means. Put them into the environment, not into `.env`.

| variable | default | meaning |
|---|---|---|
| `METEO_HOME` | `/var/lib/meteo` for root, else `.meteo` in the checkout | where Python, jars and stacks are |
| `METEO_STACK` | `meteo` | the stack's name, as `--stack` |
| `METEO_PORT_OFFSET` | what the stack has, else 0 | added to every port when a stack is put up |
| `METEO_PROJECT` | set by the launcher | the checkout |
| `METEO_INSIDE` | set for a command's own container | its stack's services are containers, and it runs among them |
| `METEO_CONTAINERS` | set for `status` there | the containers' states, which only the host can ask Docker for |
| `METEO_FAILPOINT` | none | for tests: `NAME:N` kills the process the N-th time it reaches that failpoint |
"""
ENV_HEAD = """\
# Settings of meteo. Copy to .env, take the # off the lines that you change, then run ./meteo up.
# docs/settings.md says where else a setting may come from, and which source wins.
"""
COMMANDS_HEAD = """\
# Commands

`./meteo COMMAND --help` says the same. `./meteo --stack NAME COMMAND` speaks to another stack than `meteo`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it ran, and the answer is no: tiers that disagree, a failed check, a deployment that failed |
| 2 | wrong usage or settings |
| 3 | a server or an API cannot be reached: the same command may succeed later |
| 130 | interrupted; run it again to go on |

An error is one sentence on standard error: what is wrong, what was expected, what to do.

Run by root, `produce`, `backfill`, `budgets`, `consume`, `dead-letters`, `retention`, `export`, `aggregate`,
`climate`, `query`, `reconcile`, `page` and `exec` give root up and run as the user `meteo`, and so do the probes of
`check`.
"""
TOOLS_HEAD = """
What follows the tool's name goes to the tool as it is, options too: `./meteo exec psql --help`. So do input, output and
terminal. Meteo tells it where the server is and as whom to connect; a password is in its environment, no argument. When
the server does not answer, meteo says so and exits with 3.
"""
METRICS_HEAD = """\
# Metrics

Each service of ours answers at `/metrics` (Prometheus text), `/healthz` and `/readyz` (JSON) on 127.0.0.1: producer
9201, consumer 9202, export 9203, aggregate 9204, page 8000, plus the stack's port offset. `/healthz` answers 503 when
the service's loop has not come round for three minutes (export and aggregate: an hour, since a cycle is one round;
page: two minutes). A service that waits for a server is healthy, says what it waits for, and is not ready: `/readyz`
answers 503.

The metrics of [the page](page.md) tell of all tiers, read every 15 s, also while the other services are down:
`meteo_pipeline_*`, `meteo_newest_*`, and the weather itself.

Labels are bounded: sources, configured places, partitions, kinds of error. On `/metrics` a counter's name ends in
`_total`, a histogram's series in `_bucket`, `_sum` and `_count`. A labelled series appears with its first value.
"""


def settings_page() -> str:
    """Return docs/settings.md."""
    rows = ["| setting | default | meaning | allowed |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (f"`{name.upper()}`", _code(_default(field)), str(field.description), _allowed(field))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return MADE_BY + SETTINGS_HEAD + "\n## Of the platform\n\n" + "\n".join(rows) + "\n" + SETTINGS_TAIL


def env_example() -> str:
    """Return .env.example."""
    blocks = []
    for name, field in Settings.model_fields.items():
        allowed = _allowed(field).replace("`", "")
        about = str(field.description) + (f"; {allowed}" if allowed else "")
        comment = textwrap.fill(about, 116, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
        blocks.append(f"{comment}\n#{name.upper()}={_default(field)}\n")
    return "\n".join([ENV_HEAD, *blocks])


def commands_page() -> str:
    """Return docs/commands.md."""
    parts = [MADE_BY + COMMANDS_HEAD]
    for name, callback in commands():
        parameters = list(_parameters(callback))
        arguments = [parameter for parameter in parameters if parameter.is_argument]
        words = [f"./meteo {name}", *(["[OPTIONS]"] if len(arguments) < len(parameters) else [])]
        words += [argument.shown if argument.required else f"[{argument.shown}]" for argument in arguments]
        parts.append(f"\n## {name}\n\n    {' '.join(words)}\n\n{' '.join((callback.__doc__ or '').split())}\n")
        rows = [f"| {parameter.name} | {parameter.meaning} |" for parameter in parameters]
        if rows:
            parts.append("\n" + "\n".join(["| option | meaning |", "|---|---|", *rows]) + "\n")
        if name == "exec":
            parts.append(_tools())
    return "".join(parts)


def _tools() -> str:
    rows = [f"| `{tool.name}` | {tool.server or '–'} | {tool.about} |" for tool in TOOLS.values()]
    return "\n".join([TOOLS_HEAD, "| tool | of | what it does |", "|---|---|---|", *rows]) + "\n"


def commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the words and the function of each command, in the order of --help."""
    yield from _commands(app)
    for group in app.registered_groups:
        assert isinstance(group.typer_instance, Typer)  # noqa: S101 - a registered group has its commands
        yield from _commands(group.typer_instance, f"{group.typer_instance.info.name} ")


def _commands(group: Typer, before: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        assert command.callback is not None  # noqa: S101 - a registered command has its function
        yield before + (command.name or command.callback.__name__), command.callback


def metrics_page() -> str:
    """Return docs/metrics.md."""
    rows = ["| metric | type | labels | meaning | file |", "|---|---|---|---|---|"]
    for name, kind, labels, meaning, path in sorted(metrics()):
        rows.append(
            f"| `{name}` | {kind.lower()} | {', '.join(map(_code, labels))} | {meaning} | [{path.name}](../{path}) |"
        )
    return MADE_BY + METRICS_HEAD + "\n" + "\n".join(rows) + "\n"


def metrics() -> Iterator[tuple[str, str, tuple[str, ...], str, Path]]:
    """Yield (name, type, labels, meaning, file) of every metric that the sources define."""
    for folder in SOURCES:
        for path in sorted((ROOT / folder).glob("meteo_*/**/*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                if node.func.id in {"Counter", "Gauge", "gauge", "Histogram", "Summary"} and len(node.args) >= 2:
                    name, meaning, *rest = (ast.literal_eval(argument) for argument in node.args)
                    labels = tuple(rest[0]) if rest else ()
                    yield name, node.func.id, labels, meaning, path.relative_to(ROOT)


def producer_settings() -> str:
    """Return the producer role's vars/main.yml: the settings that the producer's code reads."""
    behind = {"places": "city", "zone": "weather_timezone"}
    read = {name for name, field in Settings.model_fields.items() if any(isinstance(m, Budget) for m in field.metadata)}
    for path in (ROOT / "producer" / "meteo_producer").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings"):
                read.add(behind.get(node.attr, node.attr))
    lines = ["# Made by docs/generate.py from the producer's code."]
    for variable, secret in (("producer_settings", False), ("producer_secret_settings", True)):
        lines.append(f"{variable}:")
        for name, field in Settings.model_fields.items():
            if name in read and (SecretStr in {field.annotation, *get_args(field.annotation)}) == secret:
                lines.append(f"  - {name.upper()}")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Return the content of each generated file by its path."""
    return {
        ROOT / "docs" / "settings.md": settings_page(),
        ROOT / "docs" / "commands.md": commands_page(),
        ROOT / "docs" / "metrics.md": metrics_page(),
        ROOT / "docs" / "variables.md": variables_page(MADE_BY),
        ROOT / "docs" / "ports.md": ports_page(MADE_BY),
        ROOT / ".env.example": env_example(),
        ROOT / "common" / "meteo_common" / "message.schema.json": schema_text(),
        ROOT / "ansible" / "roles" / "producer" / "vars" / "main.yml": producer_settings(),
        **{path: with_tables(path.read_text("utf-8")) for path in map((ROOT / "docs").joinpath, WITH_TABLES)},
    }


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if _is_duration(field):
        return next(f"{value // size}{unit}" for unit, size in _UNITS if value % size == 0)
    return "" if value is None else str(value)


_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def _is_duration(field: FieldInfo) -> bool:
    return any(getattr(item, "func", None) is parse_duration for item in field.metadata)


def _allowed(field: FieldInfo) -> str:
    if _is_duration(field):
        return "a whole number with s, m, h or d"
    if field.annotation is bool:
        return "`true` or `false`"
    if choices := [value for value in get_args(field.annotation) if isinstance(value, str)]:
        return ", ".join(map(_code, choices))
    bounds = {name: getattr(item, name) for item in field.metadata for name in ("ge", "le") if hasattr(item, name)}
    return f"{bounds['ge']}…{bounds['le']}" if len(bounds) == 2 else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


@dataclass(frozen=True)
class _Parameter:
    """An option or argument of a command: its name as a cell of a table, and as a word of the command."""

    name: str
    shown: str
    meaning: str
    is_argument: bool
    required: bool


def _parameters(callback: Callable[..., Any]) -> Iterator[_Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, *more = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        info = next((item for item in more if isinstance(item, OptionInfo | ArgumentInfo)), None)
        if info is None:
            continue
        shown = info.metavar or name.upper()
        is_argument = isinstance(info, ArgumentInfo)
        # Of Annotated options Typer keeps the first name where the default of the older style was.
        given = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
        names = ", ".join(f"`{each}`" for each in given or [f"--{name.replace('_', '-')}"])
        cell = f"`{shown}`" if is_argument else names + _value(kind, shown, info.metavar)
        meaning = str(info.help or "").replace("|", r"\|")
        if isinstance(parameter.default, str | int) and not isinstance(parameter.default, bool):
            meaning += f" Default: `{parameter.default}`."
        yield _Parameter(cell, shown, meaning, is_argument, parameter.default is inspect.Parameter.empty)


def _value(kind: Any, shown: str, named: str | None) -> str:
    if get_origin(kind) is Literal:
        return " " + " or ".join(map(_code, get_args(kind)))
    kinds = {kind, *get_args(kind)}
    if int in kinds and bool not in kinds and not named:
        return " N"
    return "" if bool in kinds else " YYYY-MM-DD" if datetime in kinds else f" {shown}"


def main() -> None:
    """Write every generated file."""
    for path, text in pages().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
