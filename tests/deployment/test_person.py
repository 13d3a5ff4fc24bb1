"""A person without root deploys from a clone of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meteo_common.settings import meteo_home

PROJECT = Path(__file__).parents[2]
OFFSET = 1200
USER = "meteo-person"

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user"),
]


def processes_of(user: str) -> dict[int, str]:
    listed = subprocess.run(["ps", "-ww", "-U", user, "-o", "pid=,args="], capture_output=True, text=True, check=False)
    return {int(line.split()[0]): line for line in listed.stdout.splitlines() if "<defunct>" not in line}


@pytest.fixture
def clone() -> Iterator[Path]:
    """A clone in the home of a new user, with copies of what only costs time to download again."""
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
    home = Path(pwd.getpwnam(USER).pw_dir)
    try:
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", PROJECT, home / "meteo"], check=True)
        for downloaded in ("jars", ".cache"):
            shutil.copytree(meteo_home() / downloaded, home / "meteo" / ".meteo" / downloaded, symlinks=True)
        subprocess.run(["chown", "-R", f"{USER}:", home], check=True)
        yield home / "meteo"
    finally:
        for pid in processes_of(USER):
            os.kill(pid, signal.SIGKILL)
        while processes_of(USER):
            time.sleep(0.2)
        subprocess.run(["userdel", "--remove", USER], capture_output=True, check=False)


def as_person(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The launcher, in the environment of a login."""
    command = f"cd {clone} && METEO_STACK=person METEO_PORT_OFFSET={OFFSET} ./meteo {' '.join(arguments)}"
    return subprocess.run(
        ["su", "-", USER, "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )


def test_a_person_puts_a_stack_up_and_takes_it_down(clone: Path) -> None:
    up = as_person(clone, "up")
    assert up.returncode == 0, up.stdout
    owners = {path.owner() for path in (clone / ".meteo" / "stacks" / "person").rglob("*")}
    assert owners == {USER}
    assert any("hbase" in line for line in processes_of(USER).values())
    down = as_person(clone, "down", "--purge")
    assert down.returncode == 0, down.stdout
    assert not processes_of(USER)
    assert not (clone / ".meteo" / "stacks" / "person").exists()
