"""What doctor finds where nothing is set up, and that it shows no secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Tenant
from meteo_cli import doctor
from meteo_cli.doctor import GUARANTEE, Machine
from meteo_cli.stack import answers
from meteo_common.settings import Settings

Doctor = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def call(tmp_path: Path) -> Doctor:
    """A function that runs `meteo doctor --json` with an empty home and returns exit code, report, and all it said."""
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    for name in ("METEO_STACK", "JAVA_HOME"):
        environment.pop(name, None)
    environment |= {"METEO_HOME": str(tmp_path), "METEO_PROJECT": str(tmp_path)}
    environment |= {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "HDFS_URL": "http://127.0.0.1:1"}

    def run(**extra: str) -> tuple[int, dict[str, Any], str]:
        command = [Path(sys.executable).parent / "meteo", "doctor", "--json"]
        ran = subprocess.run(
            command, env=environment | extra, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        return ran.returncode, json.loads(ran.stdout), ran.stdout + ran.stderr

    return run


def test_each_setting_tells_where_it_comes_from(call: Doctor, tmp_path: Path) -> None:
    stack = tmp_path / "stacks" / "meteo"
    stack.mkdir(parents=True)
    (stack / "settings.env").write_text("TOPIC_NAME=of-the-stack\nHDFS_USER=of-the-stack\nCITY=Oslo,NO\n")
    (tmp_path / ".env").write_text("TOPIC_NAME=of-dotenv\nCITY=Rome,IT\nFALLBACK=\nTOPIC=mistyped\n")
    code, report, _ = call(CITY="Bern,CH")
    found = {each["name"]: (each["origin"], each["value"]) for each in report["settings"]}
    assert code == 1
    assert found["CITY"] == ("environment", "Bern,CH")
    assert found["TOPIC_NAME"] == (".env", "of-dotenv")
    assert found["HDFS_USER"] == ("stack", "of-the-stack")
    assert found["FALLBACK"] == ("default", "none")
    assert found.keys() == {name.upper() for name in Settings.model_fields}
    warnings = [each["what"] for each in report["findings"] if each["severity"] == "warning"]
    assert "TOPIC in .env is no setting" in warnings


def test_no_secret_is_shown(call: Doctor) -> None:
    _, report, said = call(
        DATABASE_URL="postgresql://meteo:geheim1@127.0.0.1:1/weatherdb",
        OPENWEATHER_API_KEY="geheim2",
        OPEN_METEO_URL="http://me:geheim3@127.0.0.1:1",
    )
    assert "geheim" not in said
    found = {each["name"]: each["value"] for each in report["settings"]}
    assert "host=127.0.0.1" in found["DATABASE_URL"]
    assert found["OPENWEATHER_API_KEY"] == "********"
    assert found["OPEN_METEO_URL"] == "http://********@127.0.0.1:1"
    _, report, said = call(DATABASE_URL="mysql://meteo:geheim@127.0.0.1/x")
    assert "geheim" not in said
    assert any("DATABASE_URL is not a libpq URL" in each["what"] for each in report["findings"])


def test_every_error_has_a_remedy_and_a_wrong_setting_is_one(call: Doctor) -> None:
    code, report, said = call(WEATHER_TIMEZONE="Europe/Atlantis")
    assert code == 1
    assert not report["healthy"]
    assert report["settings"] == []
    assert said.splitlines()[-1].startswith("error: ")
    errors = [each for each in report["findings"] if each["severity"] == "error"]
    assert any("The setting WEATHER_TIMEZONE is 'Europe/Atlantis'" in each["what"] for each in errors)
    stackless = next(each for each in errors if each["check"] == "ports")
    assert (stackless["what"], stackless["remedy"]) == (
        "There is no stack 'meteo' yet",
        "put it up with ./meteo up",
    )


def test_a_fallback_that_is_no_source_is_an_error(call: Doctor) -> None:
    _, report, _ = call(FALLBACK="bbc")
    (error,) = [each["what"] for each in report["findings"] if each["check"] == "settings"]
    assert error.startswith("The setting FALLBACK is 'bbc': expected none or one of open-meteo, openweather, ")


def test_the_promise_is_that_of_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text("utf-8")
    numbered = [line[3:] for line in page.splitlines() if line[:3] in {"1. ", "2. ", "3. ", "4. "}]
    assert numbered[: len(GUARANTEE)] == list(GUARANTEE)


def test_a_port_answers_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers("127.0.0.1", port)
    assert not answers("127.0.0.1", port)


@pytest.mark.parametrize(
    ("free", "severity"), [(10_000_000_000, "ok"), (2_000_000_000, "warning"), (500_000_000, "error")]
)
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, free: int, severity: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    (finding,) = doctor.check_disk(Machine())
    assert (finding.severity, bool(finding.remedy)) == (severity, severity != "ok")


@pytest.mark.parametrize(("ahead", "severity"), [(0, "ok"), (60, "warning"), (-60, "warning")])
def test_a_clock_that_is_apart_is_told(monkeypatch: pytest.MonkeyPatch, ahead: int, severity: str) -> None:
    monkeypatch.setattr(doctor, "_database_time", lambda _: datetime.now(UTC) + timedelta(seconds=ahead))
    monkeypatch.setattr(doctor, "_namenode_time", lambda _: datetime.now(UTC))
    assert [finding.severity for finding in doctor.check_clocks(Machine())] == [severity, "ok"]


def test_servers_that_are_up_are_found_well(tenant: Tenant) -> None:
    report = json.loads(tenant.meteo("doctor", "--json", code=None))
    clocks = [each for each in report["findings"] if each["check"] == "clocks"]
    assert [each["severity"] for each in clocks] == ["ok", "ok"], clocks
    assert [each["what"] for each in clocks] == ["the clock of PostgreSQL agrees", "the clock of the NameNode agrees"]
