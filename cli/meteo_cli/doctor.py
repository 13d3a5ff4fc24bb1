"""The command `doctor`: what may be wrong with this machine, its settings and its stack, each with its remedy."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import psycopg2
import typer
from dotenv import dotenv_values
from psycopg2.extensions import parse_dsn
from pydantic import SecretStr

from meteo_cli import containers, stack
from meteo_common.console import numbered, out, print_columns, run_command
from meteo_common.database import connect, transaction
from meteo_common.errors import MeteoError, MismatchError
from meteo_common.settings import Settings, load_settings, meteo_home, setting_files, stack_directory
from meteo_producer.sources import fallback_of

GUARANTEE = (
    "Every Kafka record ends up in exactly one of the tables `weather` and `dead_letters`.",
    "Every row of `weather` lies in exactly one file in HDFS, under its day.",
    "An observation, that is a (`station_id`, `observed_at`), counts once in every aggregate, however many rows it"
    " has.",
    "From the API to Kafka it is at least once: asking again may add rows, never observations.",
)
"""As docs/guarantees.md says it."""

LAUNCHER = {"METEO_HOME", "METEO_STACK", "METEO_PORT_OFFSET", "METEO_PROJECT"}
DISK_LOW, DISK_MINIMUM = 5_000_000_000, 1_000_000_000
"""Bytes free: below the first PostgreSQL, Kafka and HDFS soon have none; below the second HDFS takes no blocks."""
API_SECONDS = 5.0
CLOCK_SECONDS = 5.0
"""Generations are made of the clock, and a collected_at that is wrong decides between messages."""

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; the remedy is empty where all is well."""

    severity: Severity
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Origin:
    """A setting as it is in force: its value as shown, and where it comes from."""

    name: str
    value: str
    origin: str


class Machine:
    """What the checks look at, looked up once."""

    @cached_property
    def settings(self) -> Settings:
        """The settings in force; raises UsageError for a wrong one."""
        return load_settings()

    @cached_property
    def deployed(self) -> stack.Stack:
        """The stack; raises UsageError when there is none."""
        return stack.read_stack()

    @cached_property
    def files(self) -> dict[str, dict[str, str | None]]:
        """What each settings file holds, by the name of the origin, the stronger first."""
        weaker, stronger = setting_files()
        return {".env": _values(stronger), "stack": _values(weaker)}

    def origins(self) -> list[Origin]:
        """Return every setting with its origin; `default` for those that nobody set."""
        environment: dict[str, str | None] = {name.upper(): value for name, value in os.environ.items()}
        sources = {"environment": environment, **self.files}
        found = []
        for name in map(str.upper, Settings.model_fields):
            origin = next((origin for origin, values in sources.items() if values.get(name)), "default")
            found.append(Origin(name, shown(name, getattr(self.settings, name.lower())), origin))
        return found


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Look for what is wrong with the settings, the machine and the stack; exits with 1 when something is."""
    run_command(lambda: _doctor(as_json))


def _doctor(as_json: bool) -> None:
    machine = Machine()
    findings = [(name, finding) for name, check in CHECKS.items() for finding in run(check, machine)]
    wrong = [finding for _, finding in findings if finding.severity == "error"]
    try:
        origins = machine.origins()
    except MeteoError:
        origins = []  # told among the findings
    if as_json:
        facts = {
            "healthy": not wrong,
            "findings": [{"check": name, **asdict(finding)} for name, finding in findings],
            "settings": [asdict(origin) for origin in origins],
            "guarantee": list(GUARANTEE),
        }
        print(json.dumps(facts))  # noqa: T201
    else:
        _print(findings, origins)
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise MismatchError(f"{wrong[0].what}{more}.")


def _print(findings: list[tuple[str, Finding]], origins: list[Origin]) -> None:
    print_columns(("setting", "from", "value"), [(each.name, each.origin, each.value) for each in origins])
    out.print()
    for name, finding in findings:
        out.print(f"{finding.severity:8} {name:9} {finding.what}", markup=False)
        if finding.remedy:
            out.print(f"{'':18} → {finding.remedy}", markup=False)
    out.print("\nThe platform's promise, which ./meteo reconcile checks by counting:")
    for number, sentence in enumerate(GUARANTEE, start=1):
        out.print(f"  {number}. {sentence}", markup=False)


def run(check: Callable[[Machine], Iterator[Finding]], machine: Machine) -> Iterator[Finding]:
    """Yield what a check finds; what it fails at becomes an error among the findings."""
    try:
        yield from check(machine)
    except MeteoError as error:
        what, _, remedy = str(error).removesuffix(".").partition("; ")
        yield Finding("error", what, remedy)


def check_settings(machine: Machine) -> Iterator[Finding]:
    """Settings that are wrong, that cannot be read, or that nobody knows."""
    for path in setting_files():
        # Into a container the host hands over what only its user may read.
        if path.exists() and not os.access(path, os.R_OK) and containers.INSIDE not in os.environ:
            yield Finding("warning", f"{path} cannot be read by this user", "run ./meteo as root, or as its owner")
    known = {name.upper() for name in Settings.model_fields} | LAUNCHER
    for name in machine.files[".env"].keys() - known:
        yield Finding("warning", f"{name} in .env is no setting", "correct it; docs/settings.md names all")
    fallback_of(machine.settings)
    changed = sum(each.origin != "default" for each in machine.origins())
    yield Finding("ok", f"{numbered(changed, 'setting')} other than the default")


def check_versions(_: Machine) -> Iterator[Finding]:
    """Python (the launcher takes none that is too old), and packages without which Kafka's client is slow or fails."""
    yield Finding("ok", f"Python {platform.python_version()}, kafka-python {metadata.version('kafka-python')}")
    for module, without in (("crc32c", "checks sums 15 times slower"), ("lz4", "cannot read compressed records")):
        if find_spec(module) is None:
            yield Finding("error", f"the package {module} is missing: Kafka's client {without}", "run ./meteo again")


def check_java(machine: Machine) -> Iterator[Finding]:
    """The Java that the servers run on."""
    home = os.environ.get("JAVA_HOME") or machine.files["stack"].get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    remedy = "install Java 17, or run ./meteo up as root once"
    try:
        said = subprocess.run(
            [program or "java", "-version"], capture_output=True, text=True, timeout=20, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    version = re.search(r'version "(\d+)', said)
    if version is None:
        yield Finding("error", f"{program or 'java'} cannot be run", remedy)
    elif int(version[1]) < 17:
        yield Finding("error", f"Java {version[1]} is too old for the servers", remedy)
    else:
        yield Finding("ok", f"Java {version[1]}")


def check_ports(machine: Machine) -> Iterator[Finding]:
    """Whether each server and service of the stack answers on each of its ports."""
    for service in machine.deployed.services:
        silent = [
            f"{port} ({name})" for name, port in service.ports.items() if not stack.answers(service.host, int(port))
        ]
        starts = f"./meteo restart {service.name}" if service.container else "./meteo up"
        if silent:
            yield Finding(
                "error",
                f"{service.name} does not answer on port {', '.join(silent)}",
                f"./meteo logs {service.name} says why; {starts} starts it",
            )
        else:
            yield Finding("ok", f"{service.name} answers on {', '.join(map(str, service.ports.values())) or 'no port'}")


def check_disk(_: Machine) -> Iterator[Finding]:
    """Free space where everything lies."""
    inside = containers.INSIDE in os.environ
    # In a command's container a volume's disk is where all volumes lie.
    home = stack_directory() / "data" / "producer" if inside else meteo_home()
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    severity: Severity = "error" if free < DISK_MINIMUM else "warning" if free < DISK_LOW else "ok"
    remedy = (
        f"free some, ./meteo retention --keep MONTHS --drop, or {'Docker' if inside else 'METEO_HOME'} on a larger disk"
    )
    where = "where Docker keeps its volumes" if inside else f"in {place}"
    yield Finding(severity, f"{free / 1e9:.1f} GB are free {where}", "" if severity == "ok" else remedy)


def check_clocks(machine: Machine) -> Iterator[Finding]:
    """This machine's clock against PostgreSQL's and the NameNode's."""
    for server, ask in (("PostgreSQL", _database_time), ("the NameNode", _namenode_time)):
        started = time.monotonic()
        try:
            there = ask(machine.settings)
        except MeteoError as error:
            what, _, remedy = str(error).removesuffix(".").partition("; ")
            yield Finding("error", what, remedy)
            continue
        # The answer was made about half way; HTTP gives whole seconds, cut off.
        apart = abs((datetime.now(UTC) - there).total_seconds() - (time.monotonic() - started) / 2)
        if apart > CLOCK_SECONDS:
            yield Finding("warning", f"the clock of {server} is {apart:.0f} s apart", "let both follow a time server")
        else:
            yield Finding("ok", f"the clock of {server} agrees")


def check_letters(machine: Machine) -> Iterator[Finding]:
    """Records that were refused and wait for somebody to look at them."""
    with closing(connect(machine.settings, "doctor")) as database, transaction(database) as cursor:
        cursor.execute("SELECT to_regclass('dead_letters') IS NOT NULL")
        if not (cursor.fetchone() or (False,))[0]:
            return
        cursor.execute("SELECT count(*) FROM dead_letters WHERE state = 'new'")
        (letters,) = cursor.fetchone() or (0,)
    if letters:
        yield Finding("warning", numbered(letters, "dead letter"), "./meteo dead-letters list")
    else:
        yield Finding("ok", "no dead letters")


def check_apis(machine: Machine) -> Iterator[Finding]:
    """Whether the weather APIs that are or could be asked answer at all; their front page costs nothing."""
    settings = machine.settings
    asked = ["open_meteo_url", "open_meteo_air_quality_url", "open_meteo_geocoding_url"]
    asked += [f"{name}_url" for name in ("openweather", "visual_crossing") if getattr(settings, f"{name}_api_key")]
    with ThreadPoolExecutor(len(asked)) as pool:
        for name, trouble in zip(
            asked, pool.map(lambda name: _api_trouble(getattr(settings, name)), asked), strict=True
        ):
            host = urlsplit(getattr(settings, name)).netloc.rpartition("@")[2]
            if trouble:
                remedy = f"check network, proxy and {name.upper()}; ./meteo produce --source replay needs no API"
                yield Finding("warning", f"{host} cannot be reached ({trouble})", remedy)
            else:
                yield Finding("ok", f"{host} answers")


CHECKS: dict[str, Callable[[Machine], Iterator[Finding]]] = {
    "settings": check_settings,
    "versions": check_versions,
    "java": check_java,
    "ports": check_ports,
    "disk": check_disk,
    "clocks": check_clocks,
    "letters": check_letters,
    "apis": check_apis,
}
"""By the word that is printed before their findings."""


def shown(name: str, value: Any) -> str:
    """Return a setting's value as it may be shown: of a database's URL all but the password, of a key nothing."""
    if not isinstance(value, SecretStr):
        # A proxy's or a server's URL may hold a password too.
        return "–" if value is None else re.sub(r"//[^/@]*@", "//********@", str(value))
    if name != "DATABASE_URL":
        return "********"
    try:
        parts = parse_dsn(value.get_secret_value())
    except psycopg2.ProgrammingError:
        return "********"
    return " ".join(f"{key}={'********' if key == 'password' else part}" for key, part in parts.items())


def _values(path: Path) -> dict[str, str | None]:
    return {name.upper(): value for name, value in dotenv_values(path).items()} if os.access(path, os.R_OK) else {}


def _database_time(settings: Settings) -> datetime:
    with closing(connect(settings, "doctor")) as database, transaction(database) as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (there,) = cursor.fetchone() or (datetime.now(UTC),)
        return there  # type: ignore[no-any-return]


def _api_trouble(url: str) -> str | None:
    """Return why an API cannot be reached, None when it answers, whatever it says."""
    import requests

    try:
        requests.head(url, timeout=API_SECONDS)
    except requests.RequestException as error:
        return type(error).__name__
    return None


def _namenode_time(settings: Settings) -> datetime:
    import requests

    try:
        answer = requests.get(settings.hdfs_url, timeout=stack.PROBE_SECONDS)
        # The NameNode says it twice, and two of them together are no date.
        return parsedate_to_datetime(answer.headers["Date"].partition(" GMT")[0] + " GMT")
    except (requests.RequestException, KeyError, ValueError) as error:
        where = urlsplit(settings.hdfs_url).netloc.rpartition("@")[2]
        raise MismatchError(
            f"The NameNode at {where} (HDFS_URL) cannot be reached ({type(error).__name__});"
            " is the stack up? (./meteo up)"
        ) from None
