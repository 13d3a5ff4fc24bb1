#!/usr/bin/python
"""A backup of a stack, as of one instant, while its services run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import backups

DOCUMENTATION = """
module: backup_take
short_description: HDFS, PostgreSQL and the passwords in a directory
description: Writes into a directory with another name, which gets its own when all is there, the manifest last.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    **backups.ARGUMENTS,
    "directory": {"type": "path", "required": True},
    # Encrypted, by Vault.
    "vaulted": {"type": "str", "required": True, "no_log": False},
    "weather_timezone": {"type": "str", "required": True},
}
ANNOUNCED = "cut: "


class FailedError(Exception):
    """A sentence for the user."""


@contextmanager
def incomplete(directory: Path) -> Iterator[Path]:
    """A directory to write into: nobody else writes there, and what was left there by one that died is gone."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FailedError(f"{directory} is there already: give each backup a directory of its own.")
    path = Path(f"{directory}{backups.INCOMPLETE}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedError(f"Another backup is writing {path}.") from None
        for left in path.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield path
    finally:
        os.close(held)


def take(params: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write HDFS and PostgreSQL as they were at one instant, and return what was announced of it."""
    environment = backups.environment(params)
    with (path / backups.HDFS).open("wb") as archive:
        copying = subprocess.Popen(
            backups.command(params, *backups.STEP, "take"),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=archive,
            stderr=subprocess.PIPE,
            text=True,
        )
        facts, said = announced(copying)
        try:
            if facts is not None:
                dump(params, environment, path / backups.DATABASE, facts["snapshot"])
        finally:
            # The end of its input is the sign that the snapshot is not needed any more.
            _, rest = copying.communicate()
    if facts is None or copying.returncode:
        raise FailedError(f"HDFS was not copied: {backups.sentence(said + rest)}")
    return facts


def announced(copying: subprocess.Popen[str]) -> tuple[dict[str, Any] | None, str]:
    """What the copying process announces when the snapshot is there, None when it ends before; what else it said."""
    said = ""
    for line in copying.stderr or ():
        if line.startswith(ANNOUNCED):
            facts: dict[str, Any] = json.loads(line.removeprefix(ANNOUNCED))
            return facts, said
        said += line
    return None, said


def dump(params: dict[str, Any], environment: dict[str, str], path: Path, snapshot: str) -> None:
    # Roles and their rights are the playbook's, which gives them to whatever it finds.
    options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
    with path.open("wb") as file:
        ran = subprocess.run(
            backups.command(params, "exec", "pg_dump", *options),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise FailedError(f"PostgreSQL was not copied: {backups.sentence(ran.stderr)}")


def finish(path: Path, directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, when all else is on the disk, and give the backup its name."""
    manifest["files"] = {
        name: backups.digest(path / name) for name in (backups.DATABASE, backups.HDFS, backups.SECRETS)
    }
    for name in manifest["files"]:
        sync(path / name)
    temporary = path / f"{backups.MANIFEST}.new"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    sync(temporary)
    temporary.rename(path / backups.MANIFEST)
    sync(path)
    path.rename(directory)
    sync(directory.parent)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    params, began = module.params, time.monotonic()
    directory = Path(params["directory"])
    # Readable by whoever takes it alone: the weather is public, the dead letters may not be.
    os.umask(0o077)
    try:
        with incomplete(directory) as path:
            taken_at = datetime.now(timezone.utc).isoformat(timespec="seconds")  # noqa: UP017 - any Python runs modules
            facts = take(params, path)
            (path / backups.SECRETS).write_text(params["vaulted"], encoding="utf-8")
            del facts["snapshot"]
            about = {"stack": params["stack"], "weather_timezone": params["weather_timezone"]}
            finish(path, directory, {"format": backups.FORMAT, "taken_at": taken_at, **about, **facts})
    except FailedError as failure:
        module.fail_json(msg=f"{failure} There is no new backup.")
    except OSError as error:
        module.fail_json(msg=f"The backup cannot be written: {error.strerror} ({error.filename}). There is none.")
    size = sum(file.stat().st_size for file in directory.iterdir())
    module.exit_json(
        changed=True,
        summary=f"{facts['rows']} rows, {facts['dead_letters']} dead letters and {len(facts['day_list'])} days"
        f" are in {directory}: {size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s.",
    )


if __name__ == "__main__":
    main()
