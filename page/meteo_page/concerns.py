"""What is not well and keeps no hop from moving: each with a sentence, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from meteo_common.console import numbered
from meteo_common.durations import format_duration
from meteo_page.books import Books
from meteo_page.hops import Hop
from meteo_page.services import ServiceState

NEARLY = 0.8
"""Of a budget, or of PostgreSQL's connections: from here on a person is told."""


@dataclass(frozen=True)
class Concern:
    """One thing to look after."""

    name: str
    sentence: str
    remedy: str


def find_concerns(
    books: Books, services: Mapping[str, ServiceState], hops: Iterable[Hop], troubles: Mapping[str, str]
) -> list[Concern]:
    """Return what a person should know besides the hops, the gravest first."""
    return [
        *_mismatches(services["aggregate"]),
        *_records(books),
        *_servers(hops, troubles),
        *_connections(books),
        *_accounts(services["producer"]),
    ]


def _mismatches(service: ServiceState) -> Iterator[Concern]:
    if found := int(service.metric("meteo_reconcile_mismatches") or 0):
        yield Concern(
            "mismatches",
            f"The tiers do not hold the same records; mismatches at the last reconciliation: {found}.",
            "./meteo reconcile names tier, day and numbers; change nothing by hand before.",
        )


def _records(books: Books) -> Iterator[Concern]:
    """Nothing undoes a gap, and not every dead letter can be replayed: told for an hour, as by their alerts."""
    if lost := books.gap_records_lately:
        yield Concern(
            "gaps",
            f"Kafka had deleted {numbered(lost, 'record')} that the consumer came for within the last hour.",
            "Keep the consumer running, or raise retention.ms in kafka_topics; ./meteo backfill gets past days again.",
        )
    if letters := books.dead_letters_lately:
        yield Concern(
            "dead-letters",
            f"{numbered(letters, 'dead letter')} came within the last hour.",
            "./meteo dead-letters list says why; after the repair ./meteo dead-letters replay.",
        )


def _servers(hops: Iterable[Hop], troubles: Mapping[str, str]) -> Iterator[Concern]:
    """YARN, which no hop needs, and a second server that a hop would name next."""
    told = " ".join(hop.sentence for hop in hops)
    for server, trouble in troubles.items():
        what, _, remedy = trouble.removesuffix(".").partition("; ")
        if what not in told:
            yield Concern(server, f"{what}.", f"{remedy or './meteo doctor looks at it'}.")


def _connections(books: Books) -> Iterator[Concern]:
    if books.connections > NEARLY * books.most_connections:
        yield Concern(
            "connections",
            f"{books.connections} of PostgreSQL's {books.most_connections} connections are taken.",
            "docs/runbooks/saturation.md says how to see who holds them.",
        )


def _accounts(service: ServiceState) -> Iterator[Concern]:
    for labels, refused in service.series("meteo_key_refused"):
        if refused:
            retry = f"./meteo budgets --retry-key {labels['account']}"
            remedy = f"./meteo budgets says for what; correct it in .env, ./meteo up, then {retry}."
            yield Concern("key", f"{labels['account']} refuses the key.", remedy)
    for labels, seconds in service.series("meteo_account_paused_seconds"):
        if seconds:
            text = f"{labels['account']} is not asked for {format_duration(seconds)}: it wants a pause (429)."
            yield Concern("pause", text, "It is asked again by itself; ./meteo logs producer has its words.")
    for labels, limit in service.series("meteo_budget_limit"):
        used = service.metric("meteo_budget_used", **labels) or 0.0
        if used >= NEARLY * limit:
            window = format_duration(int(labels["window"]))
            text = f"{used:.10g} of the {limit:.10g} that {labels['account']} allows in {window} are used."
            yield Concern("budget", text, "./meteo budgets shows all; fewer places or a longer PRODUCE_EVERY spare it.")
