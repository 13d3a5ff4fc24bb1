"""A backup taken while weather comes, is merged and aggregated: all of it is of one instant, and comes back."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import threading
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tiers

from conftest import METEO, Tenant, TenantMaker
from meteo_common.database import connect
from meteo_common.errors import MismatchError
from meteo_hadoop.aggregate import aggregate_once
from meteo_hadoop.archive import INDEX, ArchiveReader
from meteo_hadoop.backup import has_data, owe_hbase, take
from meteo_hadoop.compact import Merger
from meteo_hadoop.locks import day_locks
from meteo_hadoop.webhdfs import FileSystem

FIRST, LAST = date(2013, 7, 1), date(2013, 7, 4)
# Of the eight that copy only the one is left that waits for the last day, beside two that wait for the eight.
WAITS = """
    SELECT count(*) = 3 AND bool_or(wait_event_type = 'Lock') FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'meteo-backup'
"""


@dataclass
class Taking:
    """A backup that another thread takes: the archive, what was announced, and the way to end it."""

    archive: io.BytesIO = field(default_factory=io.BytesIO)
    facts: dict[str, Any] = field(default_factory=dict)
    announced: threading.Event = field(default_factory=threading.Event)
    dumped: threading.Event = field(default_factory=threading.Event)

    def announce(self, facts: dict[str, Any]) -> None:
        self.facts.update(facts)
        self.announced.set()


@dataclass(frozen=True)
class Taken:
    """A backup, and what the tenant held at its instant."""

    archive: bytes
    dump: Path
    facts: dict[str, Any]
    records: int
    aggregates: dict[str, bytes]


def more(tenant: Tenant) -> int:
    """Give the tenant two days once more, which are other records, take them to HDFS and return how many they are."""
    records = tiers.publish(tenant, "2013-07-01", "2013-07-02")
    tiers.consume(tenant)
    tiers.export(tenant)
    return records


@pytest.fixture(scope="module")
def source(make_tenant: TenantMaker) -> Tenant:
    """A tenant with four days, aggregated, and a dead letter."""
    tenant = make_tenant()
    tiers.publish(tenant, "2013-07-01", "2013-07-04")
    tiers.send(tenant, [b"\xff"])
    tiers.consume(tenant)
    tiers.export(tenant)
    tenant.meteo("climate", "--engine", "local")
    tiers.aggregate(tenant)
    return tenant


@pytest.fixture(scope="module")
def taken(source: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """A backup during which days that it has copied already get rows, are merged and aggregated."""
    settings, taking = source.settings, Taking()
    thread = threading.Thread(
        target=take, args=(settings, taking.archive, taking.announce, taking.dumped.wait), daemon=True
    )
    with closing(connect(settings, "test")) as database, day_locks(database, [LAST]):
        thread.start()
        tiers.eventually("it waits for the last day", lambda: source.query(WAITS) == [(True,)])
        more(source)
        assert Merger(settings).merge(database, FIRST).files == 6
        aggregate_once(settings, "local", date(2013, 7, 2))
        aggregate_once(settings, "local", FIRST)
    assert taking.announced.wait(30)
    records, aggregates = source.query("SELECT count(*)::int FROM weather")[0][0], tiers.read_aggregates(source)
    assert isinstance(records, int)
    more(source)  # comes too late for it
    dump = tmp_path_factory.mktemp("backup") / "dump"
    with dump.open("wb") as file:
        command = [METEO, "exec", "pg_dump", "--format=custom", f"--snapshot={taking.facts['snapshot']}"]
        subprocess.run(command, env=source.environment, stdout=file, check=True, timeout=60)
    taking.dumped.set()
    thread.join(30)
    assert not thread.is_alive()
    return Taken(taking.archive.getvalue(), dump, taking.facts, records, aggregates)


def restore(tenant: Tenant, taken: Taken) -> None:
    """Put a backup into a tenant that has nothing."""
    name = tenant.settings.database_url.get_secret_value().rpartition("/")[2]
    with taken.dump.open("rb") as file:
        command = [METEO, "exec", "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={name}"]
        subprocess.run(command, env=tenant.environment, stdin=file, check=True, timeout=60)
    ArchiveReader(tenant.settings).put(io.BytesIO(taken.archive))
    owe_hbase(tenant.settings)


def test_it_is_of_one_instant(taken: Taken, make_tenant: TenantMaker) -> None:
    assert (taken.facts["rows"], taken.facts["dead_letters"]) == (taken.records, 1)
    assert taken.facts["day_list"] == [f"2013-07-0{number}" for number in range(1, 5)]
    tenant = make_tenant()
    assert has_data(tenant.settings) == {"postgresql": False, "hdfs": False}
    restore(tenant, taken)
    assert has_data(tenant.settings) == {"postgresql": True, "hdfs": True}
    assert tiers.read_aggregates(tenant) == taken.aggregates
    tenant.meteo("aggregate")  # the last days' late rows, and HBase, which is owed all
    tiers.assert_whole(tenant, taken.records)
    assert FileSystem(tenant.settings).length(f"{tenant.settings.hdfs_base_path}_climate/climate.jsonl")
    # Its Kafka has another topic: another generation, counted from its own start.
    added = more(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, taken.records + added)
    assert tenant.query("SELECT count(*) FROM topics") == [(2,)]


def test_what_was_there_goes(taken: Taken, make_tenant: TenantMaker) -> None:
    tenant = make_tenant()
    tiers.publish(tenant, "2013-08-01", "2013-08-02")
    tiers.consume(tenant)
    tiers.export(tenant)
    tiers.aggregate(tenant)
    empty = make_tenant().settings.database_url
    tenant = Tenant(tenant.settings.model_copy(update={"database_url": empty}))
    restore(tenant, taken)
    tenant.meteo("aggregate")
    tiers.assert_whole(tenant, taken.records)


def test_a_file_that_changed_comes_twice_and_one_that_went_is_not_wanted(taken: Taken) -> None:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(taken.archive))) as tar:
        names = tar.getnames()
        index = tar.extractfile(INDEX)
        assert index is not None
        wanted = json.load(index)["files"]
    assert names.count("days/dt=2013-07-02/_manifest.json") == 2
    assert names.count(f"days/dt={LAST}/_manifest.json") == 1
    merged_away = {name for name in set(names) - wanted.keys() if "dt=2013-07-01/weather_" in name}
    assert len(merged_away) == 2


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda archive: archive[: len(archive) // 2], "is damaged"),
        (lambda archive: archive[:0], "is damaged"),
        (lambda archive: without_index(archive), "ends before its index"),
    ],
    ids=["cut", "empty", "without its index"],
)
def test_half_an_archive_is_told(taken: Taken, make_tenant: TenantMaker, damage: Any, says: str) -> None:
    with pytest.raises(MismatchError, match=says):
        ArchiveReader(make_tenant().settings).put(io.BytesIO(damage(taken.archive)))


def without_index(archive: bytes) -> bytes:
    """Return the archive of one that died before it wrote the index."""
    copy = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=copy, mode="w:gz") as new:
        for member in old:
            if member.name != INDEX:
                new.addfile(member, old.extractfile(member))
    return copy.getvalue()
