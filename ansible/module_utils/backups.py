"""What the modules of backup and restore share: a backup's files, and commands of ./meteo against the stack."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE, HDFS, SECRETS = "weatherdb.dump", "hdfs.tar.gz", "secrets.yml"
INCOMPLETE = ".incomplete"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "program": {"type": "path", "required": True},
    "project": {"type": "path", "required": True},
    "home": {"type": "path", "required": True},
    "stack": {"type": "str", "required": True},
}
STEP = ("exec", "python", "-m", "meteo_cli.backup_steps")


def command(params: dict[str, Any], *arguments: str) -> list[str]:
    return [params["program"], "--stack", params["stack"], *arguments]


def environment(params: dict[str, Any]) -> dict[str, str]:
    """The shell's, but the stack's own addresses: its settings must not lead to another stack."""
    own = {"METEO_HOME": params["home"], "METEO_PROJECT": params["project"], "METEO_STACK": params["stack"]}
    deployed = Path(params["home"]) / "stacks" / params["stack"] / "settings.env"
    lines = deployed.read_text(encoding="utf-8").splitlines() if deployed.exists() else []
    settings = {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines) if value}
    return {**os.environ, **settings, **own}


def sentence(stderr: str) -> str:
    """The last words of a command that failed, which are its reason."""
    lines = [line for line in stderr.splitlines() if line.strip()] or ["it said nothing"]
    found = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
    return found.removeprefix("error: ").removeprefix("pg_restore: error: ").removeprefix("pg_dump: error: ").strip()


def digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a whole backup. Raises ValueError with a sentence for anything else."""
    path = directory / MANIFEST
    if not path.exists():
        begun = directory if directory.name.endswith(INCOMPLETE) else Path(f"{directory}{INCOMPLETE}")
        raise ValueError(
            f"{begun} is a backup that was not finished; take another one."
            if begun.is_dir()
            else f"{directory} is no backup: there is no {MANIFEST} in it."
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        found, files = manifest["format"], manifest["files"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"The backup {directory} is damaged: {MANIFEST} is not readable; use another one.") from None
    if found != FORMAT:
        raise ValueError(f"The backup {directory} has the format {found}, this version reads {FORMAT}.")
    for name in (DATABASE, HDFS, SECRETS):
        try:
            same = digest(directory / name) == files[name]
        except (OSError, KeyError):
            raise ValueError(f"The backup {directory} is damaged: {name} is missing; use another one.") from None
        if not same:
            raise ValueError(
                f"The backup {directory} is damaged: {name} is not what {MANIFEST} says of it; use another one."
            )
    return manifest
