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
YARN = {"resourcemanager": "ResourceManager", "nodemanager": "NodeManager"}
"""A job needs both."""
SECONDS = 4.0
"""Within the bound of a reading, and long enough for a machine that is busy."""

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
    notes: tuple[str, ...] = ()
    """Sentences on what is not there and why, such as Grafana where its server is not installed."""

    @classmethod
    def read(cls, settings: Settings) -> StackState:
        """Return what METEO_STACK_FILE says; nothing where it cannot be read: there may be no stack on this host."""
        path = stack_file(settings)
        try:
            found = json.loads(path.read_text("utf-8"))
            return cls(found["services"], tuple(map(str, found.get("notes", ()))))
        except (OSError, ValueError, KeyError, TypeError):
            return cls({})

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


def read_stack(settings: Settings) -> tuple[StackState, dict[str, ServiceState], dict[str, bool]]:
    """Return the stack, the state of each of NAMES, and whether each server of YARN answers (none where it has none).

    All are asked side by side, so that it takes SECONDS at most.
    """
    stack = StackState.read(settings)
    bases = {name: address.rpartition("/")[0] for name in NAMES if (address := _health(stack, name))}
    asked = [f"{base}{path}" for base in bases.values() for path in ("/healthz", "/metrics")]
    yarn = {name: address for name in YARN if (address := _health(stack, name))}
    asked += yarn.values()
    with ThreadPoolExecutor(len(asked) or 1) as pool:
        told = dict(zip(asked, pool.map(_get, asked), strict=True))
    services = {
        name: _state(name, told[f"{bases[name]}/healthz"], told[f"{bases[name]}/metrics"])
        if name in bases
        else ServiceState(name)
        for name in NAMES
    }
    answers = {name: told[address] for name, address in yarn.items()}
    return stack, services, {name: answer is not None and answer.ok for name, answer in answers.items()}


def _health(stack: StackState, name: str) -> str | None:
    address = (stack.services.get(name) or {}).get("health", {}).get("http")
    return str(address) if address else None


def _get(address: str) -> requests.Response | None:
    session = requests.Session()
    # A proxy has no way to what listens on this host's loopback.
    session.trust_env = False
    try:
        return session.get(address, timeout=SECONDS)
    except requests.RequestException:
        return None


def _state(name: str, health: requests.Response | None, metrics: requests.Response | None) -> ServiceState:
    try:
        if health is None or metrics is None:
            return ServiceState(name, deployed=True)
        facts = health.json()
        samples: list[Sample] = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(metrics.text)
            for sample in family.samples
        ]
    except ValueError:  # somebody else listens there
        return ServiceState(name, deployed=True)
    return ServiceState(name, True, bool(facts.get("healthy")), facts.get("waiting_for"), samples)
