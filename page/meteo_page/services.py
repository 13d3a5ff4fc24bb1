"""Our other services, and the stack that they belong to: what runs, since when, and what its metrics say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from prometheus_client.parser import text_string_to_metric_families

from meteo_common.settings import Settings, stack_directory

NAMES = ("producer", "consumer", "export", "aggregate")
SECONDS = 2.0

Sample = tuple[str, Mapping[str, str], float]


@dataclass(frozen=True)
class ServiceState:
    """A service of ours; `deployed` is whether the stack has it, `up` whether it answers."""

    name: str
    deployed: bool = False
    up: bool = False
    waiting_for: str | None = None
    samples: list[Sample] = field(default_factory=list, repr=False)

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of its first sample of this name with these labels, None when there is none."""
        return next(
            (value for found, has, value in self.samples if found == name and labels.items() <= has.items()), None
        )

    def series(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        """Return labels and value of all samples of this name."""
        return [(labels, value) for found, labels, value in self.samples if found == name]

    @property
    def since(self) -> float | None:
        """When its process began (unix seconds)."""
        return self.metric("process_start_time_seconds")


@dataclass(frozen=True)
class StackState:
    """The stack's servers and services by name, as its index file describes them."""

    services: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, settings: Settings) -> StackState:
        """Return what METEO_STACK_FILE says; nothing where it cannot be read: there may be no stack on this host."""
        path = stack_file(settings)
        try:
            found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["services"]
        except (OSError, ValueError, KeyError, TypeError):
            return cls({})
        return cls(found)

    def links(self) -> list[dict[str, str]]:
        """Return every page that may be opened: service, title, url."""
        return [
            {"service": name, "title": str(link["title"]), "url": str(link["url"])}
            for name, entry in self.services.items()
            for link in entry.get("urls") or []
            if urlsplit(str(link["url"])).scheme in {"http", "https"} and name != "page"
        ]


def stack_file(settings: Settings) -> Path:
    """Return where the stack's index lies: METEO_STACK_FILE, else the file of the stack that METEO_STACK names."""
    return settings.meteo_stack_file or stack_directory() / "stack.json"


def read_services(stack: StackState) -> dict[str, ServiceState]:
    """Return the state of each of NAMES, asked side by side."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        return dict(zip(NAMES, pool.map(lambda name: _read(name, stack.services.get(name)), NAMES), strict=True))


def answers(stack: StackState, name: str) -> bool | None:
    """Say whether a server's health address answers; None where the stack has no such server."""
    address = (stack.services.get(name) or {}).get("health", {}).get("http")
    if not address:
        return None
    try:
        return _session().get(address, timeout=SECONDS).ok
    except requests.RequestException:
        return False


def _read(name: str, entry: dict[str, Any] | None) -> ServiceState:
    address = (entry or {}).get("health", {}).get("http")
    if not address:
        return ServiceState(name)
    base = str(address).rpartition("/")[0]
    session = _session()
    try:
        health = session.get(f"{base}/healthz", timeout=SECONDS).json()
        text = session.get(f"{base}/metrics", timeout=SECONDS).text
    except (requests.RequestException, ValueError):
        return ServiceState(name, deployed=True)
    samples: list[Sample] = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    return ServiceState(name, True, bool(health.get("healthy")), health.get("waiting_for"), samples)


def _session() -> requests.Session:
    session = requests.Session()
    # A proxy has no way to what listens on this host's loopback.
    session.trust_env = False
    return session
