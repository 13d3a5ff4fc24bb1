"""A past day's observations as one Parquet file, typed, for analysts: `<HDFS_BASE_PATH>_parquet/dt=…/weather.parquet`.

One row for each observation, that of its winning message, sorted by station and time. It is written when the day's
files are merged, and again by each export that brings the day late rows. pyarrow is imported only then.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from io import BytesIO
from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta, Struct
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import transaction
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.ledger import Ledger
from meteo_hadoop.locks import day_locks, still_held
from meteo_hadoop.manifest import Days
from meteo_hadoop.webhdfs import FileSystem
from meteo_hadoop.workers import Report, each_day

log = structlog.get_logger()

NAME = "weather.parquet"

Instant = Annotated[datetime, Meta(tz=True)]


class Observation(Struct):
    """Values measured at one instant, in the units of their names; None was not said."""

    temperature_celsius: float | None = None
    apparent_temperature_celsius: float | None = None
    humidity_percent: float | None = None
    pressure_hpa: float | None = None
    wind_speed_mps: float | None = None
    wind_gust_mps: float | None = None
    wind_direction_degrees: float | None = None
    cloud_cover_percent: float | None = None
    visibility_metres: float | None = None
    precipitation_1h_mm: float | None = None
    condition: str | None = None


class AirQuality(Struct):
    """An index by its provider's scale."""

    scale: str
    index: float | None = None


class Sun(Struct):
    """Sunrise and sunset."""

    sunrise: Instant | None = None
    sunset: Instant | None = None


class Message(Struct):
    """What a line holds of a message."""

    normaliser_version: int
    source: str
    data_origin: str
    station_id: str
    city: str
    observed_at: Instant
    collected_at: Instant
    observation: Observation
    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    air_quality: AirQuality | None = None
    sun: Sun | None = None
    quality: list[str] = []


class Line(Struct):
    """A line of a day's file."""

    partition: int
    msg_offset: int
    value: Message
    topic_generation: int = 1

    @property
    def order(self) -> tuple[datetime, int, int, int, int]:
        """The greatest of one station and time wins, as in observations.py."""
        message = self.value
        return (
            message.collected_at, message.normaliser_version, self.topic_generation, self.partition, self.msg_offset,
        )  # fmt: skip

    def columns(self) -> dict[str, Any]:
        """Return the row of the table."""
        message = self.value
        air, sun = message.air_quality, message.sun
        return {
            **{name: getattr(message, name) for name in _OF_MESSAGE},
            **msgspec.structs.asdict(message.observation),
            "air_quality_scale": air and air.scale,
            "air_quality_index": air and air.index,
            "sunrise": sun and sun.sunrise,
            "sunset": sun and sun.sunset,
            "quality": message.quality,
            "topic_generation": self.topic_generation,
            "partition": self.partition,
            "msg_offset": self.msg_offset,
        }


_OF_MESSAGE = (
    "station_id", "observed_at", "collected_at", "city", "country", "latitude", "longitude", "source", "data_origin",
)  # fmt: skip
_decoder = msgspec.json.Decoder(Line)


class ParquetWriter:
    """Writes days, one at a time, under the day's lock."""

    # A day whose merge has not been settled is left to the next time.
    ENDED = """
        SELECT day FROM days WHERE day < %s AND parquet_version < files_version AND merge_begun_at IS NULL
        ORDER BY day LIMIT %s
    """
    STALE = """
        SELECT day FROM days WHERE parquet_version BETWEEN 1 AND files_version - 1 AND merge_begun_at IS NULL
        ORDER BY day
    """
    WRITTEN = "UPDATE days SET parquet_version = %s WHERE day = %s"

    def __init__(self, settings: Settings) -> None:
        self._filesystem = FileSystem(settings)
        self._days = Days(self._filesystem, settings.hdfs_base_path)
        self._parquet = parquet_days(self._filesystem, settings)

    def write(self, connection: Connection, day: date) -> int:
        """Write the day's file anew and return its rows; 0 for a day without a manifest."""
        with day_locks(connection, [day]):
            version = Ledger(connection).states([day])[day].files_version
            manifest = self._days.read(day)
            if manifest is None:
                return 0  # reconcile says so
            paths = [self._days.path(day, name) for name in sorted(manifest.files)]
            winners = winning_lines(line for path in paths for line in self._filesystem.read(path).splitlines())
            content = encode(winners)
            reach("parquet.before_write")
            still_held(connection)
            self._filesystem.publish(self._parquet.path(day, NAME), [content])
            reach("parquet.after_write")
            with transaction(connection) as cursor:
                cursor.execute(self.WRITTEN, (version, day))
        return len(winners)


def parquet_days(filesystem: FileSystem, settings: Settings) -> Days:
    """Return the directories of the Parquet files."""
    return Days(filesystem, f"{settings.hdfs_base_path}_parquet")


def write_ended(
    settings: Settings,
    connection: Connection,
    today: date,
    report: Report = lambda *_: None,
    at_most: int | None = None,
) -> int:
    """Write the Parquet of the days before `today` that have none of their present files, all or the oldest.

    Returns how many days.
    """
    return _write(settings, connection, ParquetWriter.ENDED, (today, at_most), report)


def write_stale(settings: Settings, connection: Connection) -> int:
    """Write again what late rows have made stale; return how many days."""
    return _write(settings, connection, ParquetWriter.STALE, (), lambda *_: None)


def _write(settings: Settings, connection: Connection, which: str, parameters: tuple[Any, ...], report: Report) -> int:
    with transaction(connection) as cursor:
        cursor.execute(which, parameters)
        days = [day for (day,) in cursor.fetchall()]
    each_day(settings, "parquet", days, ParquetWriter(settings).write, report)
    return len(days)


def winning_lines(lines: Iterable[bytes]) -> list[Line]:
    """Return the winner of each observation, by station and time; what is no row counts nowhere, as in aggregates."""
    winners: dict[tuple[str, datetime], Line] = {}
    bad = 0
    for text in lines:
        try:
            line = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            bad += 1
            continue
        key = (line.value.station_id, line.value.observed_at)
        other = winners.get(key)
        if other is None or other.order < line.order:
            winners[key] = line
    if bad:
        log.warning("lines are left out of the Parquet", lines=bad)
    return [winners[key] for key in sorted(winners)]


def encode(lines: Iterable[Line]) -> bytes:
    """Return the Parquet file of these lines: zstd, times in UTC to the microsecond."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    instant = pa.timestamp("us", tz="UTC")
    measured = {name: pa.string() if name == "condition" else pa.float64() for name in Observation.__struct_fields__}
    schema = pa.schema(
        {
            **dict.fromkeys(_OF_MESSAGE, pa.string()),
            **dict.fromkeys(("observed_at", "collected_at"), instant),
            **dict.fromkeys(("latitude", "longitude"), pa.float64()),
            **measured,
            "air_quality_scale": pa.string(),
            "air_quality_index": pa.float64(),
            "sunrise": instant,
            "sunset": instant,
            "quality": pa.list_(pa.string()),
            "topic_generation": pa.int32(),
            "partition": pa.int32(),
            "msg_offset": pa.int64(),
        }
    )
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist([line.columns() for line in lines], schema), file, compression="zstd")
    return file.getvalue()
