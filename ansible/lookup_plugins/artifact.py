"""The directory name of a fetched server: its version, and a hash of the pom that pins it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: artifact
short_description: component-version-hash of a server below stack/
description: A changed pom is another directory, so that a running stack keeps its jars.
options:
  _terms:
    description: The component, a directory below stack/ of the checkout.
    required: true
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        stack = Path((variables or {})["playbook_dir"]).parent / "stack"
        return [name(component, (stack / component / "pom.xml").read_bytes()) for component in terms]


def name(component: str, pom: bytes) -> str:
    version = re.search(rb"^  <version>(.+)</version>$", pom, re.MULTILINE)
    if version is None:
        raise ValueError(f"stack/{component}/pom.xml has no <version> of its own")
    return f"{component}-{version[1].decode()}-{hashlib.sha256(pom).hexdigest()[:12]}"
