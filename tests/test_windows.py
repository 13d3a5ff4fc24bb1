"""The part of meteo.ps1 that runs in Linux: what it is handed arrives as it was typed. Its other part needs Windows."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
from pathlib import Path

import pytest

SCRIPT = (Path(__file__).parents[1] / "meteo.ps1").read_text("utf-8")
ARGUMENTS = ["exec", "psql", "-c", """SELECT 'a  b' AS "Ä", '$HOME', '*', '\\', '`id`'""", "", "two\nlines;", "Oslo,NO"]


def piece(pattern: str) -> str:
    """What the script holds between two of its words."""
    found = re.findall(pattern, SCRIPT, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def passed_on(home: Path, checkout: str, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run in a shell what wsl.exe is told to, put together as the script does."""
    head = piece(r"^\$lines = @\((.+?)\)$").replace("'", "").replace(", ", "\n")
    end = piece(r"@'\n(.+?)\n'@$")
    lines = [head, "export METEO_STACK='lab'", f"checkout={shlex.quote(checkout)}", end]
    packed = base64.b64encode(" ".join(["\n".join(lines), *map(shlex.quote, arguments)]).encode()).decode()
    command = piece(r'--exec sh -c "(.+?)"$').replace("$packed", packed).replace("`$", "$")
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(["sh", "-c", command], env=environment, input=b"input", capture_output=True, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a checkout whose launcher shows its stack, its arguments and its input, and exits with 3."""
    launcher = tmp_path / "meteo" / "meteo"
    launcher.parent.mkdir()
    launcher.write_text('#!/bin/sh\nprintf "%s\\0" "$METEO_STACK" "$@"\ncat\nexit 3\n')
    launcher.chmod(0o755)
    return tmp_path


def test_arguments_input_and_exit_code_are_passed_on(home: Path) -> None:
    for checkout in ("meteo", str(home / "meteo")):
        ran = passed_on(home, checkout, ARGUMENTS)
        assert ran.stdout.decode().split("\0") == ["lab", *ARGUMENTS, "input"], ran.stderr
        assert ran.returncode == 3


def test_a_missing_checkout_gets_its_sentence(home: Path) -> None:
    ran = passed_on(home, "else where", ["status"])
    assert ran.returncode == 2
    said = f"error: There is no checkout of meteo in {home}/else where; clone it there, or set METEO_WSL_CHECKOUT"
    assert ran.stderr.decode().startswith(said)


def test_nothing_of_it_needs_a_quote_on_the_way() -> None:
    assert not re.search("[\"'\\\\]", piece(r'--exec sh -c "(.+?)"$'))
