"""What `check` asks of everything that Prometheus scrapes: its metrics, and among them one that we go by."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial

from meteo_cli.probes import Probe, Target, fetch
from meteo_common.console import numbered
from meteo_common.errors import MeteoError, MismatchError


@dataclass(frozen=True)
class Scrape:
    """Where a service has its metrics: the name of its port, and the path; `metric`: one that alerts or pages read."""

    service: str
    port: str
    path: str
    metric: str

    def lacks(self, target: Target) -> str | None:
        """Return the sentence for a service that was put up without metrics."""
        if self.service not in target.services:
            return f"This stack was put up without {self.service}."
        there = self.port in target.services[self.service].ports
        return None if there else f"{self.service} was put up without metrics."

    def read(self, target: Target) -> str:
        """Read the metrics. Raises MismatchError when the one is missing that must be there."""
        text = target.get(self.service, self.port, self.path)
        values = re.findall(rf"^{self.metric}(?:\{{.*\}})? (\S+)", text, re.MULTILINE)
        if not values:
            raise MismatchError(
                f"{self.service} answers at {self.path} without {self.metric}; ./meteo logs {self.service}."
            )
        if self.metric == "pg_up" and set(map(float, values)) != {1.0}:
            raise MismatchError(
                f"{self.service} cannot read PostgreSQL (pg_up is 0); ./meteo logs {self.service} says why."
            )
        return _count(text, self.path)


SCRAPES = (
    Scrape("kafka", "metrics", "/metrics", "kafka_controller_activecontrollercount"),
    Scrape("postgres-exporter", "metrics", "/metrics", "pg_up"),
    Scrape("namenode", "http", "/prom", "fs_namesystem_capacity_total"),
    Scrape("datanode", "http", "/prom", "jvm_metrics_mem_heap_used_m"),
    Scrape("resourcemanager", "http", "/prom", "cluster_metrics_num_active_n_ms"),
    Scrape("nodemanager", "http", "/prom", "jvm_metrics_mem_heap_used_m"),
    Scrape("hbase-master", "http", "/prometheus", "assignment_manager_rit_count_over_threshold"),
    Scrape("hbase-thrift", "http", "/prometheus", "jvm_metrics_mem_heap_used_m"),
    Scrape("producer", "metrics", "/metrics", "meteo_outbox_messages"),
    Scrape("consumer", "metrics", "/metrics", "meteo_consumer_batch_seconds_count"),
    Scrape("export", "metrics", "/metrics", "meteo_cycle_duration_seconds"),
    Scrape("aggregate", "metrics", "/metrics", "meteo_cycle_duration_seconds"),
    Scrape("page", "page", "/metrics", "meteo_pipeline_fresh"),
    Scrape("node-exporter", "metrics", "/metrics", "node_memory_MemAvailable_bytes"),
    Scrape("prometheus", "http", "/metrics", "prometheus_notifications_alertmanagers_discovered"),
    Scrape("alertmanager", "http", "/metrics", "alertmanager_notifications_failed_total"),
)
"""The targets of the role `prometheus`."""

PROBES = tuple(Probe(f"metrics of {each.service}", (), each.read, each.lacks) for each in SCRAPES)


def others(target: Target) -> list[Probe]:
    """Return probes of what Prometheus scrapes besides, by `prometheus_more_targets`; none while it does not answer."""
    if "prometheus" not in target.services:
        return []
    try:
        found = json.loads(target.get("prometheus", "http", "/api/v1/targets?state=active"))["data"]["activeTargets"]
    except (MeteoError, ValueError, LookupError):
        return []  # told by the probe of its own metrics
    known = {target.address(each.service, each.port, each.path) for each in SCRAPES if each.lacks(target) is None}
    more = {each["scrapeUrl"]: each["labels"]["job"] for each in found if each["scrapeUrl"] not in known}
    return [Probe(f"metrics of {job}", (), partial(_read_other, job, address)) for address, job in more.items()]


def _read_other(job: str, address: str, _: Target) -> str:
    remedy = "start it, or correct prometheus_more_targets"
    text = fetch(job, address, remedy)
    if not _samples(text):
        raise MismatchError(f"{job} answers at {address} without metrics; {remedy}.")
    return _count(text, address)


def _count(text: str, place: str) -> str:
    return f"{numbered(_samples(text), 'sample')} at {place}."


def _samples(text: str) -> int:
    return sum(1 for line in text.splitlines() if line and not line.startswith("#"))
