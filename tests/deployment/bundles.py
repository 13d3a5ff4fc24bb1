"""What a support bundle holds."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path


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
