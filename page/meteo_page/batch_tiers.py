"""The tiers of the days: the newest observation of each station in aggregates.jsonl and in HBase."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime

import requests

from meteo_common.errors import UnreachableError
from meteo_common.settings import Settings
from meteo_hadoop.hbase import AggregateTable, StoredRow
from meteo_hadoop.manifest import AGGREGATES, Days
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import FileSystem

DAYS_BACK = 3
"""Of a station whose newest day is not aggregated yet, that many days before it are looked at."""
STATE = {"qry": "Hadoop:service=NameNode,name=FSNamesystemState"}
"""The NameNode's own metrics tell of the safe mode at its start only."""
SECONDS = 3.0
SEPARATOR = b"$"  # follows '#', which stands between station and day


def read_aggregates(settings: Settings, newest: Mapping[str, date]) -> dict[str, datetime]:
    """Return last_observed_at of each station's newest aggregates, looked for from its newest day backwards.

    Raises UnreachableError when HDFS is away, also when there is no day to read.
    """
    days = Days(FileSystem(settings), settings.hdfs_base_path)
    listed = sorted(days.listed(), reverse=True)
    lines: dict[date, dict[str, datetime]] = {}
    found = {}
    for station, day in newest.items():
        for candidate in [each for each in listed if each <= day][:DAYS_BACK]:
            if candidate not in lines:
                lines[candidate] = _read_day(days, candidate)
            if station in lines[candidate]:
                found[station] = lines[candidate][station]
                break
    return found


def read_safe_mode(settings: Settings) -> bool:
    """Return whether HDFS is in safe mode, where it takes no writes. Raises UnreachableError when it does not say."""
    try:
        with requests.Session() as session:
            # A proxy has no way to what listens on this host's loopback.
            session.trust_env = False
            beans = session.get(f"{settings.hdfs_url}/jmx", params=STATE, timeout=SECONDS).json()["beans"]
        return bool(beans[0]["FSState"] != "Operational")
    except (requests.RequestException, ValueError, LookupError):
        raise UnreachableError("The NameNode does not say whether it takes writes; ./meteo logs namenode.") from None


def read_hbase(settings: Settings, stations: Iterable[str]) -> dict[str, datetime]:
    """Return last_observed_at of each station's newest row. Raises UnreachableError when HBase is away."""
    found = {}
    with AggregateTable.connect(settings) as table:
        for station in stations:
            for row in table.scan(f"{station}#".encode(), station.encode() + SEPARATOR, newest=True):
                if isinstance(row, StoredRow) and "last_observed_at" in row.fields:
                    found[station] = datetime.fromisoformat(row.fields["last_observed_at"])
    return found


def _read_day(days: Days, day: date) -> dict[str, datetime]:
    try:
        content = days.filesystem.read(days.path(day, AGGREGATES))
    except FileVanishedError:
        return {}  # not aggregated yet, or expired
    rows = map(json.loads, content.splitlines())
    return {row["station_id"]: datetime.fromisoformat(row["last_observed_at"]) for row in rows}
