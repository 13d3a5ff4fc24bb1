"""What a support bundle holds, and how a test asks for one as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

METEO = Path(sys.executable).parent / "meteo"
PROJECT = Path(__file__).parents[2]


def pack(stack: str, file: Path, *options: str, code: int = 0) -> str:
    """Run `./meteo support-bundle`; what it prints."""
    ran = subprocess.run(
        [METEO, "--stack", stack, "support-bundle", file, *options],
        env={**os.environ, "METEO_PROJECT": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == code, f"{ran.returncode}\n{ran.stdout}"
    return ran.stdout


def unpack(file: Path) -> dict[str, str]:
    """Return each text of a bundle by its name below the bundle's own directory."""
    found = {}
    with tarfile.open(file) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            assert content is not None
            found[entry.name.partition("/")[2]] = content.read().decode("utf-8")
    return found


def holders(texts: dict[str, str], secrets: Iterable[str]) -> list[tuple[str, str]]:
    """Return each secret with the text that holds it, also where a line is wrapped."""
    wanted = [secret for secret in secrets if secret]
    assert len(wanted) > 3
    return [
        (secret, name) for name, text in texts.items() for secret in wanted if secret in name + "".join(text.split())
    ]
