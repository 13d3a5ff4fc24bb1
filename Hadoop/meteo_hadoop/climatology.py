"""HDFS → climate.jsonl: the climate of every station, over all days, published as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.console import numbered
from meteo_common.database import connect, open_database
from meteo_common.errors import MismatchError
from meteo_common.settings import Settings
from meteo_hadoop.climate import climate_job
from meteo_hadoop.engine import EngineName, Result
from meteo_hadoop.engines import run_job
from meteo_hadoop.ledger import Ledger
from meteo_hadoop.locks import climate_lock, still_held
from meteo_hadoop.manifest import Days, file_sizes
from meteo_hadoop.plans import Plans
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import THREADS, FileSystem

log = structlog.get_logger()

CLIMATE = "climate.jsonl"
_READINGS = 3


@dataclass(frozen=True)
class Climatology:
    """What a run has computed and where it lies."""

    path: str
    days: int
    stations: int
    seconds: float
    engine: str
    bad_lines: dict[str, int] = field(default_factory=dict)


def climate_path(settings: Settings) -> str:
    """Return the path of the published file: beside HDFS_BASE_PATH, where only days lie."""
    return f"{settings.hdfs_base_path}_climate/{CLIMATE}"


def climate_once(settings: Settings, engine: EngineName, tell: Callable[[str], None] = lambda _: None) -> Climatology:
    """Compute the climate of all exported days and publish it.

    Raises MismatchError for a day without its manifest, UnreachableError when a server is away.
    """
    started = time.monotonic()
    with _connections(settings) as (database, locks), climate_lock(locks):
        Plans(database, settings.weather_timezone).check_time_zone(keep=False)
        ledger = Ledger(database)
        filesystem = FileSystem(settings)
        for reading in range(1, _READINGS + 1):
            days = list(ledger.states())
            tell(f"{numbered(len(days), 'day')} to look at")
            try:
                result = _compute(settings, Days(filesystem, settings.hdfs_base_path), days, engine)
                break
            except FileVanishedError as error:
                # No day is locked while all are read: files may be merged meanwhile, and are then read again.
                if reading == _READINGS:
                    raise
                log.info("reading the manifests again", error=str(error))
        path = climate_path(settings)
        still_held(locks)
        filesystem.publish(path, [line + b"\n" for _, line in result.lines], lines=len(result.lines))
    return Climatology(path, len(days), len(result.lines), time.monotonic() - started, result.engine, result.bad_lines)


@contextmanager
def _connections(settings: Settings) -> Iterator[tuple[Connection, Connection]]:
    database = open_database(settings, "climate")
    try:
        locks = connect(settings, "climate")
        try:
            yield database, locks
        finally:
            locks.close()
    finally:
        database.close()


def _compute(settings: Settings, days: Days, chosen: Collection[date], engine: EngineName) -> Result:
    with ThreadPoolExecutor(THREADS) as pool:
        manifests = dict(zip(chosen, pool.map(days.read, chosen), strict=True))
    held = {day: manifest for day, manifest in manifests.items() if manifest is not None}
    if lost := sorted(manifests.keys() - held.keys()):
        names = ", ".join(f"dt={name}" for name in lost[:5])
        raise MismatchError(f"{names} in {days.base_path} lost its manifest; restore it.")
    return run_job(climate_job(settings.weather_timezone), engine, settings, file_sizes(days, held))
