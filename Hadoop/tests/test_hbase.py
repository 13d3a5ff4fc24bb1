"""The aggregates in a real HBase: generations, reconnection, the text of the cells."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import pytest
from weather_rows import compute, random_rows

from meteo_common.errors import UnreachableError
from meteo_common.settings import Settings, load_settings
from meteo_hadoop.hbase import BATCH_ROWS, AggregateTable, DayWrite, StoredRow, _delete, cells, texts

DAY = date(2026, 11, 20)
G = 1_790_000_000_000


def aggregates(station: str = "test:A", **fields: object) -> dict[str, object]:
    return {
        "date": DAY.isoformat(),
        "station_id": station,
        "observations": 3,
        "aqi_avg": 2.5,
        "city": "Zürich",
    } | fields


def test_a_cell_is_the_text_of_the_line() -> None:
    line = '{"a": 10.0, "b": 1e-07, "c": 7, "d": null, "e": "Zürich", "f": 71.13623449381694, "g": true, "h": -0.0}'
    numbers = {"a": "10.0", "b": "1e-07", "c": "7", "f": "71.13623449381694", "g": "true", "h": "-0.0"}
    assert texts(json.loads(line)) == numbers | {"e": "Zürich"}
    assert cells({"e": "Zürich"}) == {b"aggregates:e": "Zürich".encode()}


def test_an_absent_server_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UnreachableError, match=rf"^HBase at 127.0.0.1:{port} .*cannot be used.*\(\./meteo up\)$"):
            AggregateTable.connect(load_settings(hbase_host="127.0.0.1", hbase_port=port))


@pytest.fixture(scope="module")
def table(settings: Settings) -> Iterator[AggregateTable]:
    """A table of this run alone."""
    with AggregateTable.connect(own_table(settings)) as table:
        yield table
        with suppress(Exception):
            table._open().delete_table(table._name, disable=True)


def own_table(settings: Settings) -> Settings:
    return settings.model_copy(update={"hbase_table": f"test_{uuid.uuid4().hex[:12]}"})


@pytest.fixture
def station() -> str:
    return f"test:{uuid.uuid4().hex[:12]}"


@pytest.mark.stack
def test_connecting_again_finds_the_table(table: AggregateTable, settings: Settings) -> None:
    with AggregateTable.connect(settings.model_copy(update={"hbase_table": table._name})) as other:
        families = other._open().table(table._name).families()
    assert families[b"aggregates"]["max_versions"] == 1


@pytest.mark.stack
def test_a_newer_generation_replaces_the_whole_row(table: AggregateTable, station: str) -> None:
    table.write_day(DAY, G, [aggregates(station)])
    assert table.row(station, DAY - timedelta(days=1)) is None
    table.write_day(DAY, G + 1, [aggregates(station, aqi_avg=None, observations=4)])
    row = table.row(station, DAY)
    assert row is not None
    assert row.generation == G + 1
    assert row.fields == {
        "date": DAY.isoformat(),
        "station_id": station,
        "observations": "4",
        "city": "Zürich",
    }


@pytest.mark.stack
def test_an_older_generation_changes_nothing(table: AggregateTable, station: str) -> None:
    table.write_day(DAY, G + 5, [aggregates(station, aqi_avg=None)])
    table.write_day(DAY, G, [aggregates(station, observations=99)])
    row = table.row(station, DAY)
    assert row is not None
    assert (row.generation, row.fields["observations"], "aqi_avg" in row.fields) == (G + 5, "3", False)


@pytest.mark.stack
def test_repeating_a_generation_is_harmless(table: AggregateTable, station: str) -> None:
    write = DayWrite(DAY, G, [aggregates(station)], [f"{station}-gone"])
    table.write_days([write])
    first = table.row(station, DAY)
    table.write_days([write, write])
    assert table.row(station, DAY) == first
    # Died between delete and put: the repetition finds its own delete.
    table._send(_delete, [f"{station}#{DAY}".encode()], G - 1)
    table.write_days([write])
    assert table.row(station, DAY) == first


@pytest.mark.stack
def test_withdrawn_rows_are_gone_until_a_newer_generation(table: AggregateTable, station: str) -> None:
    table.write_day(DAY, G, [aggregates(station)])
    table.write_day(DAY, G + 1, [], [station])
    assert table.row(station, DAY) is None
    table.write_day(DAY, G, [aggregates(station)])
    assert table.row(station, DAY) is None
    table.write_day(DAY, G + 2, [aggregates(station)])
    assert table.row(station, DAY) is not None


@pytest.mark.stack
def test_many_batches_at_once_write_each_row(table: AggregateTable, station: str) -> None:
    days = [DAY + timedelta(days=number) for number in range(5)]
    stations = [f"{station}-{number:04d}" for number in range(BATCH_ROWS // 2)]
    for generation in (G, G + 1):
        table.write_days(
            [
                DayWrite(day, generation, [aggregates(each, observations=generation) for each in stations])
                for day in days
            ]
        )
    found = list(table.scan(f"{station}-".encode(), f"{station}.".encode()))
    assert [(row.station_id, row.day, row.fields["observations"]) for row in found if isinstance(row, StoredRow)] == [
        (each, day, str(G + 1)) for each in stations for day in days
    ]


@pytest.mark.stack
def test_a_broken_connection_is_made_again(table: AggregateTable, station: str) -> None:
    table.write_day(DAY, G, [aggregates(station)])
    for _ in range(2):
        _break(table)
        table.write_day(DAY, G, [aggregates(station)])
        _break(table)
        assert table.row(station, DAY) is not None


@pytest.mark.stack
def test_a_year_of_days_and_its_scan(settings: Settings) -> None:
    lines, _ = compute(random_rows(seed=3, number=300))
    by_day = [
        DayWrite(
            DAY + timedelta(days=number), G + number % 3, [line | {"station_id": f"test:{key}"} for key in "ABCDE"]
        )
        for number, line in zip(range(365), lines * 365, strict=False)
    ]
    with AggregateTable.connect(own_table(settings)) as table:
        try:
            assert list(table.scan()) == []
            table.write_days(by_day)
            found = list(table.scan())
            # More than one page, in the order of keys.
            assert len(found) == 5 * 365
            assert [(row.station_id, row.day) for row in found] == sorted((row.station_id, row.day) for row in found)
            wanted = {
                (str(row["station_id"]), write.day): (texts(row), write.generation)
                for write in by_day
                for row in write.rows
            }
            assert {(row.station_id, row.day): (row.fields, row.generation) for row in found} == wanted
        finally:
            table._open().delete_table(table._name, disable=True)


def _break(table: AggregateTable) -> None:
    """Do to the connection what the server does to an idle one."""
    table._open()
    descriptor = next(fd for fd in _sockets() if _peer(fd) == (table._host, table._port))
    with socket.socket(fileno=descriptor) as raw:
        raw.shutdown(socket.SHUT_RDWR)
        raw.detach()


def _sockets() -> Iterator[int]:
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith("socket:"):
                yield int(link.name)


def _peer(descriptor: int) -> object:
    raw = socket.socket(fileno=descriptor)
    try:
        return raw.getpeername()
    except OSError:
        return None
    finally:
        raw.detach()
