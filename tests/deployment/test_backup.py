"""Backups of a real stack: taken while it runs, restored onto another, refused when they are not whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
import yaml
from ansible_modules import load

from .conftest import ANSIBLE, PROGRAMS, PROJECT, Deployment, alive, flat

pytestmark = pytest.mark.deployment
# What a restore does not need is left out, for the time that it takes.
LEAN = ("-e", "monitoring_enabled=false", "-e", "yarn_enabled=false")
# Weather that comes by itself, whatever network there is.
COMING = ("-e", "producer_source=simulation", "-e", "export_every=5s")
WITHOUT_SERVICES = ("-e", "services_enabled=false")
RECORDED = "SELECT count(*)::int FROM weather WHERE date_time < '2014-01-01'"
DAYS = "SELECT count(*)::int FROM days WHERE day < '2014-01-01'"


@dataclass(frozen=True)
class Backups:
    """A stack with weather, a backup of yesterday and one of today, and their Vault password's file."""

    stack: Deployment
    yesterday: Path
    today: Path
    password: Path


def count(stack: Deployment, statement: str) -> int:
    """Return the one number that a statement finds."""
    connection = psycopg2.connect(stack.settings()["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        ((number,),) = cursor.fetchall()
    connection.close()
    return int(number)


def family(root: int) -> list[int]:
    """Return a process and all that it has started, which Ansible puts into sessions of their own."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def flow(stack: Deployment, first: str, last: str) -> None:
    """Take days of the recorded year through all tiers."""
    stack.meteo("produce", "--source", "replay", "--from", first, "--to", last)
    for command in (("consume", "--until-idle"), ("export", "--compact"), ("aggregate", "--engine", "local")):
        stack.meteo(*command)


@pytest.fixture(scope="module")
def backups(stack: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    """The stack runs with all of its services."""
    folder = tmp_path_factory.mktemp("backups")
    password = folder / "password"
    password.write_text("of the vault\n", "utf-8")
    own = Backups(stack, folder / "yesterday", folder / "today", password)
    stack.meteo("up", *LEAN, *COMING)
    flow(stack, "2013-07-01", "2013-07-05")
    stack.meteo("backup", own.yesterday, "--vault-password-file", password)
    flow(stack, "2013-07-06", "2013-07-07")
    stack.meteo("backup", own.today, "--vault-password-file", password)
    return own


def test_a_backup_holds_no_password_in_plain(backups: Backups) -> None:
    names = {path.name for path in backups.today.iterdir()}
    assert names == {"manifest.json", "weatherdb.dump", "hdfs.tar.gz", "secrets.yml"}
    assert backups.today.stat().st_mode & 0o777 == 0o700
    plain = (backups.stack.directory / "secrets.yml").read_text("utf-8")
    for path in backups.today.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert not [value for value in yaml.safe_load(plain).values() if value.encode() in path.read_bytes()]
    view = [
        PROGRAMS / "ansible-vault",
        "view",
        "--vault-password-file",
        backups.password,
        backups.today / "secrets.yml",
    ]
    assert subprocess.run(view, capture_output=True, text=True, check=True).stdout.strip() == plain.strip()


def test_a_backup_is_not_overwritten(backups: Backups) -> None:
    said = flat(backups.stack.meteo("backup", backups.today, "--vault-password-file", backups.password, code=1))
    assert f"{backups.today} is there already" in said


def test_a_backup_without_a_password_is_refused(backups: Backups) -> None:
    said = flat(backups.stack.meteo("backup", backups.today, code=2))
    assert "give --vault-password-file FILE" in said
    run = backups.stack.playbook("backup.yml", backup_directory=f"{backups.today}-2")
    assert run.code != 0
    assert "There is no Vault password" in run.output


def test_an_interrupted_backup_is_none(backups: Backups) -> None:
    directory = backups.today.with_name("interrupted")
    command = [PROGRAMS / "meteo", "--stack", backups.stack.name, "backup", directory]
    process = subprocess.Popen(
        [*command, "--vault-password-file", backups.password],
        env={**os.environ, "METEO_PROJECT": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    begun = Path(f"{directory}.incomplete")
    end = time.monotonic() + 60
    while not (begun / "hdfs.tar.gz").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    for pid in family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    said = flat(backups.stack.meteo("restore", directory, "--overwrite", code=1))
    assert f"{begun} is a backup that was not finished" in said
    backups.stack.meteo("backup", directory, "--vault-password-file", backups.password)
    assert not begun.exists()
    assert (directory / "manifest.json").exists()


def damage(path: Path) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["weatherdb.dump", "hdfs.tar.gz", "secrets.yml"])
def test_each_file_is_compared_with_the_manifest(backups: Backups, tmp_path: Path, name: str) -> None:
    read_manifest = load(ANSIBLE / "module_utils" / "backups.py").read_manifest
    copy = tmp_path / "copy"
    shutil.copytree(backups.today, copy)
    assert read_manifest(copy)["stack"] == backups.stack.name
    damage(copy / name)
    with pytest.raises(ValueError, match=f"is damaged: {name} is not what manifest.json says of it"):
        read_manifest(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"is damaged: {name} is missing"):
        read_manifest(copy)
    (copy / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match=r"is damaged: manifest\.json is not readable"):
        read_manifest(copy)


def test_a_damaged_backup_is_refused(backups: Backups, tmp_path: Path) -> None:
    before, name = backups.stack.processes(), "hdfs.tar.gz"
    copy = tmp_path / "copy"
    shutil.copytree(backups.today, copy)
    damage(copy / name)
    said = flat(backups.stack.meteo("restore", copy, "--overwrite", code=1))
    assert f"is damaged: {name} is not what manifest.json says of it" in said
    assert backups.stack.processes() == before


def test_a_stack_that_has_data_is_not_overwritten_unasked(backups: Backups) -> None:
    before = backups.stack.processes()
    said = flat(backups.stack.meteo("restore", backups.today, code=1))
    assert "holds data (postgresql and hdfs), which a restore would replace" in said
    assert backups.stack.processes() == before


def test_postgresql_of_yesterday_is_brought_up_to_hdfs(backups: Backups) -> None:
    stack = backups.stack
    rows, days = count(stack, RECORDED), count(stack, DAYS)
    assert json.loads((backups.yesterday / "manifest.json").read_text("utf-8"))["rows"] < rows
    said = flat(stack.meteo("restore", backups.yesterday, "--only", "postgres", "--overwrite", *LEAN, *COMING))
    assert "0 mismatches" in said
    assert (count(stack, RECORDED), count(stack, DAYS)) == (rows, days)
    assert "0 mismatches" in flat(stack.meteo("reconcile", "--deep"))
    assert {"producer", "consumer", "export", "aggregate"} <= stack.processes().keys()


def test_a_restore_onto_an_empty_host(backups: Backups) -> None:
    """A stack of another name, when nothing is left of the first: Kafka's topic is another one."""
    rows, days = count(backups.stack, RECORDED), count(backups.stack, DAYS)
    stack = Deployment("deploy-restored", backups.stack.offset)
    assert backups.stack.down(purge=True).code == 0
    try:
        refused = flat(stack.meteo("restore", backups.today, code=2))
        assert "give --vault-password-file FILE" in refused
        options = ("--vault-password-file", backups.password, *LEAN, *WITHOUT_SERVICES)
        assert "0 pending, 0 mismatches" in flat(stack.meteo("restore", backups.today, *options))
        assert (count(stack, RECORDED), count(stack, DAYS)) == (rows, days)
        assert len(json.loads(stack.meteo("query", "--date", "2013-07-06", "--json"))) == 3
        flow(stack, "2013-07-07", "2013-07-08")
        said = flat(stack.meteo("reconcile", "--deep"))
        assert "weather-api 2/0: " in said
        assert "0 pending, 0 mismatches" in said
    finally:
        stack.down(purge=True)
    assert not alive(stack.directory)
