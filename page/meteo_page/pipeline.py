"""The state of the whole pipeline: one computation for the page, the API, the metrics and `./meteo status`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from meteo_common.console import numbered
from meteo_common.days import day_of, format_instant
from meteo_common.durations import format_duration
from meteo_common.settings import Settings
from meteo_page.batch_tiers import read_aggregates, read_hbase, read_safe_mode
from meteo_page.books import BookReader, Books, StationBook
from meteo_page.concerns import Concern, find_concerns
from meteo_page.hops import GRACE_SECONDS, LATE_INTERVALS, Facts, Hop, judge
from meteo_page.kafka_tier import KafkaState, KafkaTier
from meteo_page.readings import SECONDS, Reader, Reading
from meteo_page.services import NAMES as SERVICES
from meteo_page.services import YARN, ServiceState, StackState, read_stack

TIERS = ("kafka", "postgresql", "hdfs", "aggregates", "hbase")
SERVERS = ("kafka", "postgresql", "hdfs", "yarn", "hbase")
SAFE_MODE = "HDFS is in safe mode and takes no writes; docs/runbooks/availability.md says how it leaves it."
NAMES = {"kafka": "Kafka", "postgresql": "PostgreSQL", "hdfs": "HDFS", "yarn": "YARN", "hbase": "HBase"}

Newest = dict[str, dict[str, datetime]]
"""Tier → station → observed_at of its newest observation there."""


@dataclass(frozen=True)
class Verdict:
    """The answer to the page's one question."""

    fresh: bool
    sentence: str
    why: str
    """Of the hop that is behind; empty while none is."""
    remedy: str
    hop: str | None
    """The first hop that is not ok."""


@dataclass(frozen=True)
class PipelineState:
    """All that was read, and what follows from it."""

    at: datetime
    verdict: Verdict
    hops: list[Hop]
    concerns: list[Concern]
    troubles: dict[str, str]
    books: Books
    """The last that were read, also while PostgreSQL is away."""
    newest: Newest
    lag: dict[int, int]
    services: Mapping[str, ServiceState]
    servers: dict[str, bool]
    links: list[dict[str, str]]
    notes: tuple[str, ...]
    poll_interval: float
    weather_timezone: str
    hbase_enabled: bool
    safe_mode: bool | None
    """Whether HDFS takes no writes; None while it does not say."""

    @property
    def stations(self) -> list[StationBook]:
        """The stations, those with the newest weather first."""
        return sorted(self.books.stations, key=lambda each: (-each.observed_at.timestamp(), each.station_id))

    def facts(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "at": format_instant(self.at),
            **asdict(self.verdict),
            "hops": [asdict(hop) for hop in self.hops],
            "concerns": [asdict(concern) for concern in self.concerns],
            "servers": [
                {"name": name, "title": NAMES[name], "up": up, "trouble": self.troubles.get(name)}
                for name, up in self.servers.items()
            ],
            "services": [_service_facts(service) for service in self.services.values()],
            "stations": [self._station_facts(station) for station in self.stations],
            "lag": {str(number): lag for number, lag in self.lag.items()},
            "counts": {**self.books.counts, "gap_records": self.books.gap_records},
            "dead_letters": self.books.dead_letters,
            "changed_days": self.books.changed_days,
            "cycles": [_cycle_facts(self.services[name]) for name in ("export", "aggregate")],
            "reconciliation": _reconciliation(self.services["aggregate"]),
            "budgets": _budgets(self.services["producer"]),
            "links": self.links,
            "notes": list(self.notes),
            "poll_interval_seconds": self.poll_interval,
            "weather_timezone": self.weather_timezone,
            "hbase_enabled": self.hbase_enabled,
        }

    def _station_facts(self, station: StationBook) -> dict[str, Any]:
        tiers = {tier: self.newest[tier].get(station.station_id) for tier in TIERS}
        return {
            "station_id": station.station_id,
            "city": station.city,
            "country": station.country,
            "data_origin": station.data_origin,
            "collected_at": format_instant(station.collected_at),
            "current": station.current,
            "newest_observed_at": {tier: at and format_instant(at) for tier, at in tiers.items()},
        }


class Pipeline:
    """Reads all tiers, side by side and each within a bound; keeps what it knew of one that is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kafka_tier = KafkaTier(settings)
        self._book_reader = Reader("PostgreSQL", BookReader(settings).read)
        self._kafka_reader = Reader("Kafka", self._kafka_tier.read)
        self._hdfs_reader = Reader("HDFS", lambda days: read_aggregates(settings, days))
        self._safe_mode_reader = Reader("HDFS", read_safe_mode)
        self._hbase_reader = Reader("HBase", lambda stations: read_hbase(settings, stations))
        self._services_reader = Reader("the stack", read_stack)
        self._stack: tuple[StackState, dict[str, ServiceState], dict[str, bool]]
        self._stack = StackState({}), {name: ServiceState(name) for name in SERVICES}, {}
        self._books = Books()
        self._newest: Newest = {tier: {} for tier in TIERS}
        self._lag: dict[int, int] = {}

    def read(self, seconds: float = SECONDS) -> PipelineState:
        """Return the state now; it takes at most twice `seconds`, whatever is away."""
        settings, troubles = self._settings, {}
        self._services_reader.begin(settings)
        self._safe_mode_reader.begin(settings)
        self._book_reader.begin()
        books = self._book_reader.result(time.monotonic() + seconds)
        if books.trouble:
            troubles["postgresql"] = books.trouble
        self._books = books.value or self._books
        stations = self._books.stations
        self._kafka_reader.begin({number: each.next_offset for number, each in self._books.positions.items()})
        self._hdfs_reader.begin(_newest_days(stations, settings))
        if settings.hbase_enabled:
            self._hbase_reader.begin([each.station_id for each in stations])
        end = time.monotonic() + seconds
        kafka = self._kafka_reader.result(end)
        hdfs = self._hdfs_reader.result(end)
        hbase = self._hbase_reader.result(end) if settings.hbase_enabled else Reading[dict[str, datetime]]()
        said = {"kafka": kafka.trouble, "hdfs": hdfs.trouble, "hbase": hbase.trouble}
        troubles |= {name: trouble for name, trouble in said.items() if trouble}
        safe_mode = self._safe_mode_reader.result(end).value
        if safe_mode:
            troubles.setdefault("hdfs", SAFE_MODE)
        self._note(kafka.value, hdfs.value, hbase.value)
        self._stack = self._services_reader.result(end).value or self._stack
        return self._state(books.value, kafka.value, troubles, safe_mode)

    def close(self) -> None:
        """Give the connections back."""
        self._kafka_tier.close()

    def _note(
        self, kafka: KafkaState | None, aggregates: dict[str, datetime] | None, hbase: dict[str, datetime] | None
    ) -> None:
        """Remember what was read; what could not be stays as it was."""
        books = self._books
        if kafka is not None:
            # Positions of a topic that was deleted and made again say nothing about the new one.
            same = books.topic_id in {None, kafka.topic_id} or kafka.topic_id is None
            positions = {number: each.next_offset for number, each in books.positions.items()} if same else {}
            self._lag = kafka.lag(positions)
            self._newest["kafka"] = kafka.newest
        self._newest["postgresql"] = {each.station_id: each.observed_at for each in books.stations}
        self._newest["hdfs"] = {each.station_id: each.exported_at for each in books.stations if each.exported_at}
        if aggregates is not None:
            self._newest["aggregates"] = aggregates
        if hbase is not None:
            self._newest["hbase"] = hbase

    def _state(
        self,
        books: Books | None,
        kafka: KafkaState | None,
        troubles: dict[str, str],
        safe_mode: bool | None,
    ) -> PipelineState:
        index, services, yarn = self._stack
        now = datetime.now(UTC)
        if away := next((name for name, up in yarn.items() if not up), None):
            troubles["yarn"] = f"YARN's {YARN[away]} does not answer; ./meteo logs {away} says why."
        facts = Facts(now, self._settings, books, kafka, services, self._lag, troubles)
        hops = judge(facts)
        servers = {name: name not in troubles for name in SERVERS}
        if not yarn:
            servers.pop("yarn")
        if not self._settings.hbase_enabled:
            servers.pop("hbase")
        return PipelineState(
            now,
            conclude(facts, hops),
            hops,
            find_concerns(self._books, services, hops, troubles),
            troubles,
            self._books,
            {tier: dict(stations) for tier, stations in self._newest.items()},
            dict(self._lag),
            services,
            servers,
            index.links(),
            index.notes,
            facts.poll_interval,
            self._settings.weather_timezone,
            self._settings.hbase_enabled,
            safe_mode,
        )


def conclude(facts: Facts, hops: Iterable[Hop]) -> Verdict:
    """Return whether the weather is fresh: collected within two intervals, and no hop behind; a sentence either way."""
    age = facts.age(facts.collected_at)
    collected = age is not None and age <= LATE_INTERVALS * facts.poll_interval + GRACE_SECONDS
    bad = [hop for hop in hops if hop.state != "ok"]
    # Whatever stands still comes before what is only late; of each the first hop, which the later ones wait for.
    worst = next((hop for hop in bad if hop.state == "stopped"), next(iter(bad), None))
    when = "no current weather has come yet" if age is None else f"collected {format_duration(age)} ago"
    if worst is None:
        if collected:
            return Verdict(True, f"The weather is fresh: {when}, and every hop moves.", "", "", None)
        text = f"The weather is not fresh: {when}, though every hop moves."
        return Verdict(False, text, "", "Wait for the first answer, or see ./meteo logs producer.", None)
    how = "stands still" if worst.state == "stopped" else "is late"
    if collected and worst.name != "produce":
        text = f"New weather comes in ({when}), but {worst.name} {how}."
    else:
        text = f"The weather is not fresh ({when}): {worst.name} {how}."
    more = len(bad) - 1
    others = f" {numbered(more, 'other hop')} {'is' if more == 1 else 'are'} not well either." if more else ""
    return Verdict(False, text, f"{worst.sentence}{others}", worst.remedy, worst.name)


def _newest_days(stations: Iterable[StationBook], settings: Settings) -> dict[str, date]:
    """Return the day of each station's newest observation."""
    return {each.station_id: day_of(each.observed_at, settings.zone) for each in stations}


def _service_facts(service: ServiceState) -> dict[str, Any]:
    since = service.since
    return {
        "name": service.name,
        "deployed": service.deployed,
        "up": service.up,
        "since": None if since is None else _instant(since),
        "waiting_for": service.waiting_for,
    }


def _cycle_facts(service: ServiceState) -> dict[str, Any]:
    last = service.metric("meteo_cycle_last_success_timestamp_seconds")
    return {
        "service": service.name,
        "last_success_at": _instant(last) if last else None,
        "interval_seconds": service.metric("meteo_cycle_interval_seconds"),
        "duration_seconds": service.metric("meteo_cycle_duration_seconds"),
        "rows": service.metric("meteo_cycle_rows_total"),
        "done": service.metric("meteo_cycles_total", outcome="done"),
        "failed": service.metric("meteo_cycles_total", outcome="failed"),
    }


def _reconciliation(service: ServiceState) -> dict[str, Any] | None:
    at = service.metric("meteo_reconcile_last_timestamp_seconds")
    if not at:
        return None
    return {
        "at": _instant(at),
        "mismatches": int(service.metric("meteo_reconcile_mismatches") or 0),
        "days": {labels["state"]: int(value) for labels, value in service.series("meteo_reconciled_days")},
    }


def _budgets(service: ServiceState) -> list[dict[str, Any]]:
    limits = service.series("meteo_budget_limit")
    return [
        {
            "account": labels["account"],
            "window_seconds": int(labels["window"]),
            "limit": limit,
            "used": service.metric("meteo_budget_used", **labels),
            "paused_seconds": service.metric("meteo_account_paused_seconds", account=labels["account"]),
            "key_refused": bool(service.metric("meteo_key_refused", account=labels["account"])),
        }
        for labels, limit in limits
    ]


def _instant(seconds: float) -> str:
    return format_instant(datetime.fromtimestamp(int(seconds), UTC))
