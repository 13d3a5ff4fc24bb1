"""Every command that the documents show runs as it stands, or is named here with the test that runs it elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiers

from conftest import Tenant, TenantMaker
from meteo_hadoop.webhdfs import FileSystem

PROJECT = Path(__file__).parents[1]
TROUBLESHOOTING = PROJECT / "docs" / "troubleshooting.md"
FIRST = (PROJECT / "docs" / "queries.md", TROUBLESHOOTING)
GENERATED = PROJECT / "docs" / "commands.md"
"""Its commands are synopses, made from the code."""
FENCED = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^\n((?: {4}.*\n|\n(?= {4}))+)", re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\./meteo [a-z-]|curl -|duckdb -|psql -)")

PLACEHOLDERS = {
    r"\bDAY\b": "2013-07-01",
    r"\bFILE\b": "notes.txt",
    r"\bTOOL\b": "psql",
    r"\bSOURCE\b": "openweather",
    r"--keep N\b": "--keep 24",
    r"--expire DAYS\b": "--expire 400",
    r"\blogs (?:NAME|SERVICE)\b": "logs kafka",
    # The session's stack has none of these.
    r"\blogs (?:producer|consumer|export|aggregate|page|alertmanager|node-exporter)\b": "logs kafka",
    # What other tests need least, and is back within seconds.
    r"\brestart [\w-]+": "restart hbase-thrift",
    r"--stack lab\b": '--stack "$METEO_STACK"',
    r"(?<=dead-letters )(show|replay) (?:ID|17)\b": r"\1 1",
}
"""What a document's words in capitals, and its examples, stand for; a tenant's own names follow when it is there."""

SERVED = "tests/test_page.py::test_observations_are_the_rows_of_the_range"
PERSON = "tests/deployment/test_person.py::test_a_person_upgrades_a_stack_with_data_and_takes_it_down"
RESTORED = "tests/deployment/test_backup.py::test_a_restore_onto_an_empty_host"
FIRST_RUN = "tests/deployment/test_stack.py::test_the_first_run_starts_everything"
BUNDLE = "tests/deployment/test_stack.py::test_a_support_bundle_holds_everything_but_the_secrets"
ELSEWHERE = {
    r"(?:\S+=\S+ )*\./meteo (?:--stack \S+ )?(?:up|down)\b": PERSON,
    r"(?:\S+=\S+ )*\./meteo (?:--stack \S+ )?(?:backup|restore)\b": RESTORED,
    r"\./meteo restart$": PERSON,  # down, then up
    r"\./meteo --setup-only": FIRST_RUN,
    r"\./meteo demo": "tests/test_pipeline.py::test_hbase_holds_the_aggregates",
    r"\./meteo test\b": "cli/tests/test_usage.py::test_wrong_usage_is_one_sentence",
    r"\./meteo bench\b": "tests/test_bench.py::test_benchmark_writes_its_ratios",
    r"\./meteo page$": SERVED,
    r"\./meteo support-bundle": BUNDLE,
    r"curl -s 'http://127.0.0.1:8000/.*/observations": SERVED,
    r"curl -s 'http://127.0.0.1:8000/.*/aggregates": "tests/test_page.py::test_aggregates_are_those_of_hbase",
    r"curl -s http://127.0.0.1:9201/healthz": (
        "tests/test_services.py::test_a_service_without_its_server_waits_says_so_and_stops_when_asked"
    ),
    r"\./meteo produce --source (?:open-meteo|openweather)": (
        "producer/tests/test_api.py::test_openweather_asks_each_feed_once_in_metric"
    ),
    r"\./meteo produce --source station-network": (
        "producer/tests/test_new_source.py::test_it_is_polled_over_http_within_its_budget"
    ),
    r"\./meteo produce --source stored": "producer/tests/test_stored.py::test_only_the_days_and_places_that_are_wanted",
    r"\./meteo backfill": "producer/tests/test_backfill.py::test_days_become_observations_and_are_asked_for_once",
    r"\./meteo dead-letters replay$": "tests/test_dead_letters.py::test_wrong_usage_is_one_sentence",
    r"duckdb -c": "tests/test_parquet.py::test_analysts_read_typed_columns_that_agree_with_the_aggregates",
}
"""What needs a network, a stack to spoil or a program that the platform does not bring → the test of the same."""

LAST = (
    *("exec hdfs dfs -mv", "dead-letters replay 1", "dead-letters replay", "consume", "export --verify"),
    *("export --rebuild", "export --compact", "export$", "aggregate", "climate", "reconcile"),
    *("retention", "export --expire", "exec kafka-delete-records", "produce", "exec kafka-topics --delete", "restart"),
)
"""What changes the tenant, in an order in which each still finds what it needs."""
SILENT = r".* >\S+$|\./meteo exec (?:psql$|hdfs dfs -mv|kafka-topics --delete)"
CODES = {r"\./meteo doctor": (0, 1)}
"""A machine may lack what the doctor looks for."""


def commands(page: Path) -> list[str]:
    """Return what a page wants to be typed, in its order."""
    text = FENCED.sub("", page.read_text("utf-8"))
    found = []
    for block in map(textwrap.dedent, BLOCK.findall(text)):
        if "<<" in block:
            found.append(block)
            continue
        lines = [re.sub(r"\s+# .*", "", line) for line in block.replace("\\\n", "").splitlines()]
        # In these two each line counts, whatever it begins with.
        found += lines if page in FIRST else filter(COMMAND.match, lines)
    found += [span.replace("\\|", "|") for span in SPAN.findall(BLOCK.sub("\n", text)) if COMMAND.match(span)]
    return [filled for line in found for each in variants(line) if (filled := fill(each))]


def variants(line: str) -> list[str]:
    """Return the commands of a synopsis: each alternative, without what may be left out."""
    short = re.sub(r" \[[^]]*\]", "", line.strip()) if line.startswith("./meteo ") and "<<" not in line else line
    first, *others = short.split(" | ") if line.startswith("./meteo ") and "exec" not in line else [short]
    head = " ".join(first.split()[:2]) if first.startswith("./meteo bench") else "./meteo"
    return [first.strip(), *(f"{head} {other.strip()}" for other in others)]


def fill(command: str) -> str:
    for placeholder, value in PLACEHOLDERS.items():
        command = re.sub(placeholder, value, command)
    return command


def rank(command: str) -> int:
    return next((number for number, part in enumerate(LAST, 1) if re.match(rf"\./meteo {part}", command)), 0)


def pages() -> list[Path]:
    others = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
    return [*FIRST, *(page for page in others if page not in (*FIRST, GENERATED))]


EVERY = list(dict.fromkeys(command for page in pages() for command in commands(page)))
RUN = sorted((each for each in EVERY if not any(re.match(pattern, each) for pattern in ELSEWHERE)), key=rank)


@dataclass(frozen=True)
class Place:
    """Where the commands are typed: a directory with ./meteo, for a stack that has what the documents speak of."""

    directory: Path
    environment: Mapping[str, str]
    names: Mapping[str, str]
    """What stands in the documents → what it is called there."""

    def lay_out(self, message: str) -> None:
        """Make what the documents take to be in the directory."""
        launcher = self.directory / "meteo"
        launcher.write_text(f'#!/bin/sh\nexec {PROJECT}/meteo "$@"\n', "utf-8")
        launcher.chmod(0o755)
        (self.directory / "corrected.json").write_text(message, "utf-8")

    def check(self, command: str) -> None:
        """Type a command; fails unless it ends as it should and says something, which is no traceback."""
        code, said = self.run(command)
        expected = next((codes for pattern, codes in CODES.items() if re.match(pattern, command)), (0,))
        # Docker's client dies of the interrupt, our own commands exit.
        assert code in ((130, -signal.SIGINT) if follows(command) else expected), said
        assert said or re.match(SILENT, command)
        if not command.startswith("./meteo logs"):
            # curl takes a refusal of WebHDFS for a success.
            assert not re.search(r"Traceback|RemoteException", said), said

    def run(self, command: str) -> tuple[int, str]:
        """Type a command and return its exit code and output; what follows a log is interrupted at its first line."""
        for name, value in self.names.items():
            command = command.replace(name, value)
        process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        first = ""
        if follows(command):
            first = process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
        try:
            rest, _ = process.communicate(timeout=240)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, first + rest


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def follows(command: str) -> bool:
    return command.endswith(" -f")


@pytest.fixture(scope="module")
def tenant(make_tenant: TenantMaker) -> Tenant:
    """One for all commands."""
    return make_tenant()


@pytest.fixture(scope="module")
def place(tenant: Tenant) -> Place:
    """Three days of the recorded year in every tier, two dead letters, and the files that the documents speak of."""
    settings = tenant.settings
    assert settings.meteo_state_dir is not None
    tiers.publish(tenant, "2013-07-01", "2013-07-03")
    tiers.send(tenant, [b"\xff", b"\xff"], partition=0)
    tiers.consume(tenant)
    valid = json.dumps(tiers.recorded_message("2013-07-03"))
    tenant.query("UPDATE dead_letters SET value = %s WHERE dead_letter_id = 2", valid.encode())
    tenant.meteo("export", "--compact")
    tiers.aggregate(tenant)
    tenant.meteo("climate")
    FileSystem(settings).publish(f"{settings.hdfs_base_path}/dt=2013-07-01/notes.txt", [b"somebody's\n"])
    directory = settings.meteo_state_dir
    (offsets,) = re.findall(r"`(\{\"version\":1.*?\})`", TROUBLESHOOTING.read_text("utf-8"))
    (directory / "delete.json").write_text(offsets.replace("weather-api", settings.topic_name), "utf-8")
    names = {
        "weather-api": settings.topic_name,
        "/user/hdfs/weather": settings.hdfs_base_path,
        "http://127.0.0.1:9870": settings.hdfs_url,
        "/user/hdfs/notes.txt": f"/user/hdfs/{settings.topic_name}.txt",
        "/tmp/delete.json": str(directory / "delete.json"),
    }
    place = Place(directory, tenant.environment, names)
    place.lay_out(valid)
    return place


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_what_does_not_run_here_is_shown_and_runs_elsewhere(pattern: str) -> None:
    assert any(re.match(pattern, command) for command in EVERY)
    path, _, name = ELSEWHERE[pattern].partition("::")
    assert f"def {name}(" in (PROJECT / path).read_text("utf-8")


@pytest.mark.parametrize("command", RUN)
def test_it_runs(place: Place, tenant: Tenant, command: str) -> None:
    place.check(command)
    if command.startswith("./meteo restart"):
        settings = tenant.settings
        tiers.eventually(
            "it is back for the other tests", lambda: listens(settings.hbase_host, settings.hbase_port), 120
        )
