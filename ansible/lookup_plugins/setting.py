"""A user's setting: the environment, else the checkout's .env, else the default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: setting
short_description: A setting from the environment, the checkout's .env, or a default
description: An empty value counts as not set.
options:
  _terms:
    description: The name of the setting, and its default.
    required: true
"""


def from_file(path: Path, name: str) -> str:
    """The last assignment wins, as in a shell; quotes around a value are not part of it."""
    value = ""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            key, separator, text = line.strip().removeprefix("export ").partition("=")
            if separator and key.strip() == name:
                value = text.strip()
                if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                    value = value[1:-1]
    return value


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        name, default = terms[0], terms[1] if len(terms) > 1 else ""
        project = Path((variables or {})["playbook_dir"]).parent
        return [os.environ.get(name) or from_file(project / ".env", name) or default]
