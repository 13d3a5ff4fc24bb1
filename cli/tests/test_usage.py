"""Wrong usage of the real program: exit code 2, one sentence, nothing done, no server asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meteo_common.settings import Settings

Program = Callable[..., "subprocess.CompletedProcess[str]"]
METEO = Path(sys.executable).parent / "meteo"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A function that runs `meteo` where nothing is set up."""
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    environment.pop("METEO_STACK", None)
    environment |= {"METEO_HOME": str(tmp_path), "METEO_PROJECT": str(tmp_path)}

    def run(*arguments: str, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [METEO, *arguments],
            env=environment | (extra or {}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("command", "extra", "says"),
    [
        ("consum", {}, "No such command 'consum'"),
        ("consume --fast", {}, "No such option: --fast"),
        ("consume everything", {}, "unexpected extra argument"),
        ("produce --source weather.com", {}, "The source 'weather.com' is unknown; expected one of open-meteo"),
        ("produce --once --every 10m", {}, "--once and --every exclude each other"),
        ("produce --source openweather --once", {}, "OPENWEATHER_API_KEY"),
        ("produce --once --city Paris", {}, "The setting CITY is 'Paris': 'Paris' is not of the form Name,CC"),
        ("produce --feed rain", {}, "The feed 'rain' is unknown"),
        ("produce --every soon", {}, "--every 'soon': expected a whole number with a unit"),
        ("produce --source replay --from 2013-02-30", {}, "--from '2013-02-30' is not a day"),
        ("produce --source replay --from 2013-05-02 --to 2013-05-01", {}, "--from 2013-05-02 is after --to 2013-05-01"),
        ("produce --source replay --from 2020-01-01", {}, "Nothing of the recorded data set is selected"),
        ("produce --source replay --city Oslo,NO", {}, "Nothing of the recorded data set is selected"),
        ("export --every 0s", {}, "--every 0s: expected a whole number with a unit"),
        ("aggregate --engine spark", {}, "'spark' is not one of 'auto', 'local', 'yarn'"),
        ("aggregate --date 2013-02-30", {}, "2013-02-30"),
        ("aggregate --all --changed", {}, "--date, --changed and --all exclude one another"),
        ("reconcile --date yesterday", {}, "yesterday"),
        ("consume", {"BOOTSTRAP_SERVERS": "kafka"}, "The setting BOOTSTRAP_SERVERS is 'kafka'"),
        ("export", {"WEATHER_TIMEZONE": "Europe/Atlantis"}, "The setting WEATHER_TIMEZONE is 'Europe/Atlantis'"),
        ("export", {"HDFS_URL": "namenode:9870"}, "The setting HDFS_URL is 'namenode:9870'"),
        ("export", {"DATABASE_URL": "mysql://127.0.0.1/weather"}, "DATABASE_URL is not a libpq URL"),
        ("consume", {"METEO_STACK": "elsewhere"}, "There is no stack 'elsewhere' yet"),
        ("status", {}, "There is no stack 'meteo' yet; put it up with ./meteo up"),
        ("check", {}, "There is no stack 'meteo' yet; put it up with ./meteo up"),
        ("check --json", {}, "There is no stack 'meteo' yet"),
        ("logs kafka", {}, "There is no stack 'meteo' yet"),
        ("exec sql", {}, "There is no tool 'sql'; there are psql, pg_dump, pg_restore, kafka-topics"),
        ("exec psql", {}, "There is no stack 'meteo' yet"),
        ("up -e nothing", {}, "-e expects NAME=VALUE"),
        ("backup today", {}, "There is no stack 'meteo' yet"),
        ("restore today", {}, "The Vault password cannot be asked for here: give --vault-password-file FILE"),
        ("restore today --only hdfs", {}, "--only hdfs: expected postgres"),
        ("restore today --vault-password-file none", {}, "--vault-password-file none: there is no such file"),
        ("test --all --long", {}, "Only one of --all, --containers and --long"),
    ],
)
def test_wrong_usage_is_one_sentence(program: Program, command: str, extra: dict[str, str], says: str) -> None:
    ran = program(*command.split(), extra=extra)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stdout + ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_stack_in_the_home_of_somebody_else_is_named(program: Program, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".meteo" / "stacks" / "lab").mkdir(parents=True)
    ran = program("status", extra={"METEO_STACK": "lab", "METEO_PROJECT": str(project)})
    assert ran.returncode == 2
    assert f"There is one in {project}/.meteo: ./meteo without sudo speaks to that." in ran.stderr


def test_help_is_no_error(program: Program) -> None:
    ran = program("--help")
    assert ran.returncode == 0
    assert "reconcile" in ran.stdout


def test_urls_repeats_what_the_deployment_found_missing(program: Program, tmp_path: Path) -> None:
    stack = tmp_path / "stacks" / "meteo"
    stack.mkdir(parents=True)
    facts = {"name": "meteo", "port_offset": 0, "secrets_file": "secrets.yml", "services": {}}
    (stack / "stack.json").write_text(json.dumps({**facts, "notes": ["Nothing watches this stack."]}))
    told = program("urls")
    assert told.returncode == 0
    assert "Nothing watches this stack." in told.stdout
