"""The files of a service: what its templates say, and a script that is its process."""

from __future__ import annotations

import difflib
import hashlib
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.masking import MASK
from ansible.module_utils.supervision import write

ARGUMENTS: dict[str, dict[str, Any]] = {
    "stack_directory": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "argv": {"type": "list", "elements": "str", "default": []},
    "env": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "files": {"type": "list", "elements": "dict", "default": []},
    "contents": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "dirs": {"type": "list", "elements": "str", "default": []},
    "prepare": {"type": "list", "elements": "dict", "default": []},
    "fingerprint": {"type": "str", "default": ""},
    "ports": {"type": "dict", "default": {}},
    "urls": {"type": "list", "elements": "dict", "default": []},
    "health": {"type": "dict", "default": {}},
    "limits": {"type": "dict", "default": {}},
    "needs": {"type": "list", "elements": "str", "default": []},
}
"""What of a service's description every runtime needs."""


def texts(home: Path, wanted: dict[str, Any]) -> dict[Path, tuple[str, int]]:
    """Text and permissions of each file that the service's templates make, by its path."""
    return {
        home / file["path"]: (text, int(file.get("mode") or "0644", 8))
        for file, text in zip(wanted["files"], wanted["contents"], strict=True)
    }


def head(data: str, wanted: dict[str, Any]) -> list[str]:
    """The first lines of the script that becomes the service: where it works, what it may open, its environment."""
    lines = ["#!/bin/sh", f"cd {shlex.quote(data)} || exit 1", "umask 022"]
    if open_files := wanted["limits"].get("open_files"):
        lines.append(f'ulimit -n {int(open_files)} 2>/dev/null || ulimit -n "$(ulimit -Hn)"')
    values = {**wanted["env"], **wanted["secrets"]}
    return lines + [f"export {key}={shlex.quote(str(value))}" for key, value in sorted(values.items())]


def differences(home: Path, wanted: dict[Path, tuple[str, int]], secrets: Iterable[str]) -> str:
    """What `converge` would do, as a diff: without files that only the service may read, and without secrets."""
    found = {path for path in home.rglob("*") if path.is_file()}
    lines: list[str] = []
    for path in sorted(found | wanted.keys()):
        text, mode = wanted.get(path, ("", 0))
        before = path.read_text("utf-8") if path.is_file() else ""
        if (before, path.is_file()) == (text, path in wanted):
            if path.stat().st_mode & 0o7777 != mode:
                lines.append(f"{path}: permissions become {mode:04o}")
        elif path.name != "run" and not (mode or path.stat().st_mode) & 0o004:
            lines.append(f"{path}: changes; it may hold secrets and is not shown")
        else:
            texts = [masked(each, secrets).splitlines() for each in (before, text)]
            lines += difflib.unified_diff(*texts, str(path), str(path) if path in wanted else "(deleted)", lineterm="")
    return "".join(f"{line}\n" for line in lines)


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without what the script exports under these names."""
    for name in secrets:
        text = re.sub(rf"^(export {re.escape(name)}=).*$", rf"\1{MASK}", text, flags=re.MULTILINE)
    return text


def converge(home: Path, wanted: dict[Path, tuple[str, int]]) -> list[str]:
    """Make the directory hold these files and no others; the paths that changed."""
    changed = [str(path) for path, (text, mode) in wanted.items() if write(path, text, mode)]
    for path in sorted(home.rglob("*")):
        if path.is_file() and path not in wanted:
            path.unlink()
            changed.append(str(path))
    return changed


def digest(wanted: dict[Path, tuple[str, int]], fingerprint: str) -> str:
    """A hash of all files: the service starts again when, and only when, it is another."""
    found = hashlib.sha256(fingerprint.encode())
    for path, (text, _) in sorted(wanted.items()):
        found.update(f"{path}\0{text}\0".encode())
    return found.hexdigest()
