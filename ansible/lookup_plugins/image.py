"""The name and tag of an image that the playbook builds: a hash of everything that goes into it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: image
short_description: meteo/COMPONENT:HASH of a directory below stack/
description: What did not change keeps its tag, so it is not built again and no container of it is made anew.
options:
  _terms:
    description: The component, a directory below stack/ of the checkout.
    required: true
"""

SERVERS = ("kafka", "hbase")
"""Built by one Dockerfile."""
CODE = ("common", "producer", "consumer", "Hadoop", "page", "cli")


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        given = variables or {}
        project = Path(given["playbook_dir"]).parent
        base = str(given.get("docker_base_image", ""))
        return [f"meteo/{component}:{content_hash(project, component, base)}" for component in terms]


def content_hash(project: Path, component: str, base: str) -> str:
    digest = hashlib.sha256(base.encode())
    for path in files(project, component):
        digest.update(f"\0{path.relative_to(project)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def files(project: Path, component: str) -> Iterator[Path]:
    yield from sorted(path for path in (project / "stack" / component).iterdir() if path.is_file())
    yield project / "stack" / "sbom.py"
    if component in SERVERS:
        yield project / "stack" / "server" / "Dockerfile"
    # Hadoop's image is made from that of our services: its Streaming tasks run our code.
    if component == "hadoop":
        yield from files(project, "services")
    if component == "services":
        yield from (project / "pyproject.toml", project / "uv.lock")
        for name in CODE:
            yield from sorted(path for path in (project / name).rglob("*") if path.is_file() and wanted(path, project))


def wanted(path: Path, project: Path) -> bool:
    return not {"tests", "__pycache__"} & set(path.relative_to(project).parts)
