"""Reconciliation finds what was settled with, in every tier, and says where and by how much."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import happybase
import pytest
import tiers

from conftest import Tenant, TenantMaker
from meteo_hadoop.webhdfs import FileSystem

DAY, OTHER_DAY = "2013-03-31", "2013-04-01"
STATIONS = ("replay:EWR", "replay:JFK", "replay:LGA")


@pytest.fixture(scope="module")
def settled(make_tenant: TenantMaker) -> Tenant:
    tenant = make_tenant()
    tiers.publish(tenant, DAY, OTHER_DAY)
    for step in (tiers.consume, tiers.export, tiers.aggregate):
        step(tenant)
    return tenant


@pytest.fixture
def undo(settled: Tenant) -> Iterator[ExitStack]:
    """What puts back what a test has changed; the tenant is clean again afterwards."""
    with ExitStack() as stack:
        yield stack
    tiers.assert_clean(settled)


def mismatch(tenant: Tenant, *options: str) -> str:
    """Return the sentence of a reconciliation that must fail."""
    ran = tiers.run(tenant, "reconcile", *options)
    told = tiers.sentence(ran, 1)
    assert "MISMATCH" in ran.stdout
    return told


class Hdfs:
    """The tenant's day in HDFS, changed and put back."""

    def __init__(self, tenant: Tenant, undo: ExitStack) -> None:
        self._undo = undo
        self.files = FileSystem(tenant.settings)
        self.directory = f"{tenant.settings.hdfs_base_path}/dt={DAY}"
        entries = [entry for entry in self.files.list(self.directory) if entry.name.startswith("weather_")]
        self.name = max(entries, key=lambda entry: entry.length).name

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Replace a file's bytes."""
        path = f"{self.directory}/{name}"
        before = self.files.read(path)
        self._undo.callback(self.files.publish, path, [before])
        self.files.publish(path, [change(before)])

    def lose(self, name: str) -> None:
        """Delete a file."""
        path = f"{self.directory}/{name}"
        self._undo.callback(self.files.publish, path, [self.files.read(path)])
        self.files.delete(path)


def test_a_deleted_row(settled: Tenant, undo: ExitStack) -> None:
    (row,) = settled.query(
        "DELETE FROM weather WHERE (partition, msg_offset) IN (SELECT partition, msg_offset FROM weather"
        " ORDER BY date_time LIMIT 1) RETURNING date_time, msg_offset, partition, topic_generation, value::text"
    )
    undo.callback(settled.query, "INSERT INTO weather VALUES (%s, %s, %s, %s, %s)", *row)
    ran = tiers.run(settled, "reconcile")
    assert f"Kafka → PostgreSQL, partition {row[2]}:" in tiers.sentence(ran, 1)
    assert "1 of them neither row, dead letter, gap nor control record" in ran.stdout
    assert f"day {DAY}: PostgreSQL has 68 exported rows, the manifest 69" in ran.stdout


def test_a_row_that_no_record_stands_for(settled: Tenant, undo: ExitStack) -> None:
    undo.callback(settled.query, "DELETE FROM weather WHERE msg_offset = 1000000")
    settled.query(
        "INSERT INTO weather SELECT date_time, 1000000, partition, topic_generation, value FROM weather LIMIT 1"
    )
    assert ", -1 of them neither row" in mismatch(settled)


def test_a_stray_file(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    undo.callback(hdfs.files.delete, f"{hdfs.directory}/weather_by_hand.json")
    hdfs.files.publish(f"{hdfs.directory}/weather_by_hand.json", [b"{}\n"])
    told = mismatch(settled)
    assert f"day {DAY}: HDFS: weather_by_hand.json is in the directory and not in the manifest" in told


def test_a_stray_directory(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    stray = f"{settled.settings.hdfs_base_path}/dt=1999-01-01"
    undo.callback(hdfs.files.delete, stray)
    undo.callback(hdfs.files.delete, f"{stray}/weather_by_hand.json")
    hdfs.files.publish(f"{stray}/weather_by_hand.json", [b"{}\n"])
    assert "day 1999-01-01: HDFS: weather_by_hand.json is in the directory" in mismatch(settled)


def test_all_that_is_foreign_is_listed(settled: Tenant, hbase: happybase.Table, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    for name in ("dt=someday", "dt=20130331"):
        stray = f"{settled.settings.hdfs_base_path}/{name}"
        undo.callback(hdfs.files.delete, stray)
        hdfs.files.make_directory(stray)
    for key, cell in ((b"no key of ours", b"1"), (b"replay:JFK#20130331", b"1"), (b"replay:JFK#1999-01-01", b"\xff")):
        undo.callback(hbase.delete, key)
        hbase.put(key, {b"aggregates:observations": cell})
    hdfs.change("_manifest.json", lambda _: b"not a manifest")
    ran = tiers.run(settled, "reconcile")
    told = tiers.sentence(ran, 1)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("  MISMATCH ")]
    assert told.endswith(f", and {len(lines) - 1} more.")
    for says in (
        f"day {DAY}: {hdfs.directory}/_manifest.json is not a manifest",
        "dt=someday is no day's directory",
        "dt=20130331 is no day's directory",
        "HBase has a row b'no key of ours' that is none of ours",
        "HBase has a row b'replay:JFK#20130331' that is none of ours",
        "HBase has a row b'replay:JFK#1999-01-01' that is none of ours",
    ):
        assert len([line for line in lines if says in line]) == 1, ran.stdout
    assert len(lines) == 6


def test_a_lost_file(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    hdfs.lose(hdfs.name)
    assert f"day {DAY}: HDFS: {hdfs.name} is in the manifest and not in the directory" in mismatch(settled)


def test_a_lost_manifest(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    hdfs.lose("_manifest.json")
    assert f"day {DAY}: PostgreSQL has 69 exported rows, the manifest 0" in mismatch(settled)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content[: content.index(b"\n") + 1], "the manifest has 69 rows, its files"),
        (lambda content: content + content[: content.index(b"\n") + 1], "the manifest has 69 rows, its files 70"),
        (lambda content: content[:-100], "is not a row"),
        (lambda content: b"not JSON\n" + content, "is not a row"),
        (lambda content: b"\xff" + content[1:], "is not a row"),
    ],
    ids=["truncated after a line", "a line twice", "truncated in a line", "a line more", "a broken byte"],
)
def test_a_file_of_other_lines(settled: Tenant, undo: ExitStack, change: Callable[[bytes], bytes], says: str) -> None:
    hdfs = Hdfs(settled, undo)
    hdfs.change(hdfs.name, change)
    ran = tiers.run(settled, "reconcile")
    assert f"day {DAY}: " in tiers.sentence(ran, 1)
    assert says in ran.stdout


def test_a_changed_byte_is_found_by_a_deep_look_alone(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    hdfs.change(hdfs.name, lambda content: content.replace(b'"city": "Ne', b'"city": "ne', 1))
    assert tiers.run(settled, "reconcile").returncode == 0
    assert f"day {DAY}: HDFS: {hdfs.name} differs from its sha256 at offsets " in mismatch(settled, "--deep")


def test_a_newline_less_is_found_by_a_deep_look(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    hdfs.change(hdfs.name, lambda content: content[:-1])
    assert f"day {DAY}: HDFS: {hdfs.name} differs from its sha256" in mismatch(settled, "--deep")


def first_line(**values: object) -> Callable[[bytes], bytes]:
    """Return a change of these values in the aggregates' first line."""

    def change(content: bytes) -> bytes:
        first, _, rest = content.partition(b"\n")
        return json.dumps(json.loads(first) | values).encode() + b"\n" + rest

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: b"".join(content.splitlines(True)[1:]), "the files have 69 observations, the aggregates 46"),
        (first_line(observations=24), "the files have 69 observations, the aggregates 70"),
        (first_line(city="Oldark"), "HBase: replay:EWR has city Newark, the aggregates Oldark"),
        (lambda content: b"not JSON\n" + content, "aggregates.jsonl has a line that is none of ours"),
        (lambda content: content[:-50], "aggregates.jsonl has a line that is none of ours"),
    ],
    ids=["a line less", "another count", "another value", "a line more", "truncated"],
)
def test_tampered_aggregates(settled: Tenant, undo: ExitStack, change: Callable[[bytes], bytes], says: str) -> None:
    Hdfs(settled, undo).change("aggregates.jsonl", change)
    ran = tiers.run(settled, "reconcile")
    assert f"day {DAY}: " in tiers.sentence(ran, 1)
    assert says in ran.stdout


def test_lost_aggregates(settled: Tenant, undo: ExitStack) -> None:
    hdfs = Hdfs(settled, undo)
    hdfs.lose("aggregates.jsonl")
    ran = tiers.run(settled, "reconcile")
    assert f"day {DAY}: HDFS: aggregates.jsonl is gone" in tiers.sentence(ran, 1)


@pytest.fixture
def hbase(settled: Tenant) -> Iterator[happybase.Table]:
    settings = settled.settings
    with closing(happybase.Connection(settings.hbase_host, settings.hbase_port)) as connection:
        yield connection.table(settings.hbase_table)


def repair(tenant: Tenant) -> None:
    """Write the aggregates to HBase as a new generation, which takes the place of whatever is there."""
    assert tiers.run(tenant, "aggregate", "--all").returncode == 0


def test_a_changed_cell(settled: Tenant, hbase: happybase.Table, undo: ExitStack) -> None:
    undo.callback(repair, settled)
    hbase.put(f"{STATIONS[1]}#{DAY}".encode(), {b"aggregates:observations": b"99"})
    assert f"day {DAY}: HBase: replay:JFK has observations 99, the aggregates 23" in mismatch(settled)


def test_a_lost_row(settled: Tenant, hbase: happybase.Table, undo: ExitStack) -> None:
    undo.callback(repair, settled)
    hbase.delete(f"{STATIONS[2]}#{DAY}".encode())
    assert f"day {DAY}: HBase: replay:LGA is missing" in mismatch(settled)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (f"replay:ZZZ#{DAY}", f"day {DAY}: HBase: replay:ZZZ is there and not in the aggregates"),
        ("replay:JFK#1999-01-01", "HBase has rows of 1999-01-01, HDFS has no partition of it"),
    ],
)
def test_a_stray_row(settled: Tenant, hbase: happybase.Table, undo: ExitStack, key: str, says: str) -> None:
    undo.callback(hbase.delete, key.encode())
    hbase.put(key.encode(), {b"aggregates:observations": b"1"})
    ran = tiers.run(settled, "reconcile")
    assert says in tiers.sentence(ran, 1)


def test_the_report_for_machines_says_the_same(settled: Tenant, undo: ExitStack) -> None:
    clean = json.loads(tiers.run(settled, "reconcile", "--json").stdout)
    assert (clean["clean"], clean["mismatches"]) == (True, [])
    assert {day["day"]: day["state"] for day in clean["days"]} == {DAY: "clean", OTHER_DAY: "clean"}
    Hdfs(settled, undo).change("aggregates.jsonl", lambda content: b"".join(content.splitlines(True)[1:]))
    ran = tiers.run(settled, "reconcile", "--json", "--date", DAY)
    report = json.loads(ran.stdout)
    assert ran.returncode == 1
    assert (report["clean"], [day["state"] for day in report["days"]]) == (False, ["mismatch"])
    assert tiers.run(settled, "reconcile", "--date", OTHER_DAY).returncode == 0


def test_what_is_on_its_way_is_pending_and_no_mismatch(tenant: Tenant) -> None:
    records = tiers.publish(tenant, DAY, OTHER_DAY)
    for step, pending in (
        (None, None),
        (tiers.consume, "69 rows to export"),
        (tiers.export, "to be aggregated"),
        (tiers.aggregate, None),
    ):
        if step:
            step(tenant)
        ran = tiers.run(tenant, "reconcile", "--deep")
        assert ran.returncode == 0, ran.stdout
        assert (f"pending {DAY}: {pending}" in ran.stdout) == bool(pending), ran.stdout
    tiers.publish(tenant, DAY, OTHER_DAY)
    tiers.consume(tenant)
    process = tiers.start(tenant, "export", extra={"METEO_FAILPOINT": "export.before_manifest"})
    assert process.wait(60) == -9
    ran = tiers.run(tenant, "reconcile", "--deep")
    assert ran.returncode == 0, ran.stdout
    assert "rows planned, not yet in HDFS" in ran.stdout
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, 2 * records)


def test_a_lost_manifest_is_not_replaced_by_a_smaller_one(settled: Tenant, undo: ExitStack) -> None:
    """An export that began anew would drop what the day has already."""
    hdfs = Hdfs(settled, undo)
    path = f"{hdfs.directory}/_manifest.json"
    manifest = hdfs.files.read(path)
    tiers.publish(settled, DAY, OTHER_DAY)
    tiers.consume(settled)
    hdfs.files.delete(path)
    told = tiers.sentence(tiers.run(settled, "export"), 1)
    assert f"dt={DAY} has lost its manifest" in told
    assert "All other days were exported." in told
    hdfs.files.publish(path, [manifest])
    for step in (tiers.export, tiers.aggregate):
        step(settled)


def test_an_export_that_died_is_pending(settled: Tenant, undo: ExitStack) -> None:
    tiers.publish(settled, DAY, DAY)
    tiers.consume(settled)
    assert tiers.run(settled, "export", extra={"METEO_FAILPOINT": "export.after_manifest"}).returncode == -9
    ran = tiers.run(settled, "reconcile")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"pending {DAY}: to be aggregated" in ran.stdout
    for step in (tiers.export, tiers.aggregate):
        step(settled)
