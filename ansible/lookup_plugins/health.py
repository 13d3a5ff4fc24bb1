"""A service's health check as a command line that its own container can run."""

from __future__ import annotations

import re
import shlex
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: health
short_description: A shell command that succeeds while the service is well
description: Images have curl, or busybox's wget; a port is tried by bash, which all of ours have.
options:
  _terms:
    description: The health check of a service's description.
    required: true
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[dict[str, Any]], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        outside = str((variables or {}).get("bind_address", "127.0.0.1"))
        return [command(term, outside) for term in terms]


def command(health: dict[str, Any], outside: str) -> str:
    if health.get("argv"):
        return shlex.join(str(word).replace(outside, "127.0.0.1") for word in health["argv"])
    if health.get("tcp"):
        return f"bash -c '</dev/tcp/127.0.0.1/{int(health['tcp'])}'"
    if health.get("http"):
        url = shlex.quote(re.sub(r"^http://[^:/]+", "http://127.0.0.1", health["http"]))
        fetch = f"if command -v curl >/dev/null; then curl -fsS {url}; else wget -qO- {url}; fi"
        return (
            f"({fetch}) | grep -Eq {shlex.quote(health['match'])}" if health.get("match") else f"({fetch}) >/dev/null"
        )
    return "true"
