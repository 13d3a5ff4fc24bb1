"""What the page tells at /metrics: the state of the pipeline as it was read last, and the weather itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from meteo_page.books import StationBook
from meteo_page.hops import NUMBERS
from meteo_page.pipeline import PipelineState

OBSERVED_WITHIN = timedelta(hours=48)
"""Older weather is no weather of now: a replayed year is not told as if it were."""

Samples = Iterable[tuple[tuple[str, ...], float | None]]


def gauge(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    """Return a gauge with its samples; what is None has none."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


class PipelineCollector(Collector):
    """Tells the last state as one: made at each scrape, so that a station that went away leaves nothing behind."""

    def __init__(self, last: Callable[[], PipelineState | None]) -> None:
        self._last = last

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing: the names are known at the first scrape."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield all families; none before the first reading."""
        if (state := self._last()) is None:
            return
        yield from _freshness(state)
        yield from _pipeline(state)
        yield from _books(state)
        since = datetime.now(UTC) - OBSERVED_WITHIN
        yield from _weather([station for station in state.stations if station.observed_at > since])


def _freshness(state: PipelineState) -> Iterator[GaugeMetricFamily]:
    yield gauge(
        "meteo_newest_observation_timestamp_seconds",
        "observed_at of the newest observation in each tier",
        ("tier", "station"),
        samples=(
            ((tier, station), at.timestamp())
            for tier, stations in state.newest.items()
            for station, at in stations.items()
        ),
    )
    yield gauge(
        "meteo_newest_collection_timestamp_seconds",
        "When the newest message in PostgreSQL was collected; replayed and backfilled ones do not count",
        ("station",),
        samples=(((each.station_id,), each.collected_at.timestamp()) for each in state.stations if each.current),
    )


def _pipeline(state: PipelineState) -> Iterator[GaugeMetricFamily]:
    yield gauge(
        "meteo_pipeline_fresh",
        "1 while the weather was collected within two intervals and no hop is behind",
        (),
        samples=[((), float(state.verdict.fresh))],
    )
    yield gauge(
        "meteo_pipeline_hop_state",
        "0 while a hop is in time, 1 late, 2 stopped",
        ("hop",),
        samples=(((hop.name,), float(NUMBERS[hop.state])) for hop in state.hops),
    )
    yield gauge(
        "meteo_pipeline_server_up",
        "1 while the page can use a server",
        ("server",),
        samples=(((server,), float(up)) for server, up in state.servers.items()),
    )
    yield gauge(
        "meteo_pipeline_hdfs_safe_mode",
        "1 while HDFS is in safe mode and takes no writes",
        (),
        samples=[((), None if state.safe_mode is None else float(state.safe_mode))],
    )
    yield gauge(
        "meteo_pipeline_last_read_timestamp_seconds",
        "When all of this was read",
        (),
        samples=[((), state.at.timestamp())],
    )


def _books(state: PipelineState) -> Iterator[GaugeMetricFamily]:
    books, counts = state.books, state.books.counts
    yield gauge(
        "meteo_pipeline_lag_records",
        "Records from the position in PostgreSQL to the end of the log, whether a consumer runs or not",
        ("partition",),
        samples=(((str(number),), float(lag)) for number, lag in state.lag.items()),
    )
    yield gauge(
        "meteo_pipeline_rows_to_export",
        "Rows of PostgreSQL that are not in HDFS yet",
        (),
        samples=[((), counts.get("rows_to_export"))],
    )
    yield gauge(
        "meteo_pipeline_days_changed",
        "Days whose aggregates are not those of their files",
        (),
        samples=[((), counts.get("days_changed"))],
    )
    yield gauge(
        "meteo_pipeline_days_owed_to_hbase",
        "Days whose aggregates HBase does not hold in whole",
        (),
        samples=[((), counts.get("days_owed_to_hbase"))],
    )
    yield gauge(
        "meteo_pipeline_dead_letters",
        "Records that are not valid messages, by state",
        ("state",),
        # Nothing read yet is not 0: what is there would then seem to have come just now.
        samples=(((name,), float(count)) for name, count in books.dead_letters.items() if counts),
    )
    yield gauge(
        "meteo_pipeline_gap_records",
        "Records that Kafka had deleted before they were taken",
        (),
        samples=[((), float(books.gap_records) if counts else None)],
    )


def _weather(stations: list[StationBook]) -> Iterator[GaugeMetricFamily]:
    def field(name: str) -> Samples:
        return (((each.station_id, each.city), each.observation.get(name)) for each in stations)

    yield gauge(
        "meteo_weather_temperature_celsius",
        "Newest temperature, of stations observed within 48 h",
        ("station", "city"),
        samples=field("temperature_celsius"),
    )
    yield gauge(
        "meteo_weather_apparent_temperature_celsius",
        "Newest apparent temperature",
        ("station", "city"),
        samples=field("apparent_temperature_celsius"),
    )
    yield gauge(
        "meteo_weather_humidity_percent",
        "Newest relative humidity",
        ("station", "city"),
        samples=field("humidity_percent"),
    )
    yield gauge("meteo_weather_pressure_hpa", "Newest pressure", ("station", "city"), samples=field("pressure_hpa"))
    yield gauge(
        "meteo_weather_wind_speed_mps", "Newest wind speed", ("station", "city"), samples=field("wind_speed_mps")
    )
    yield gauge("meteo_weather_wind_gust_mps", "Newest gust", ("station", "city"), samples=field("wind_gust_mps"))
    yield gauge(
        "meteo_weather_wind_direction_degrees",
        "Where the newest wind comes from",
        ("station", "city"),
        samples=field("wind_direction_degrees"),
    )
    yield gauge(
        "meteo_weather_cloud_cover_percent",
        "Newest cloud cover",
        ("station", "city"),
        samples=field("cloud_cover_percent"),
    )
    yield gauge(
        "meteo_weather_visibility_metres",
        "Newest visibility",
        ("station", "city"),
        samples=field("visibility_metres"),
    )
    yield gauge(
        "meteo_weather_precipitation_1h_mm",
        "Rain plus snow, as water, of the newest hour",
        ("station", "city"),
        samples=field("precipitation_1h_mm"),
    )
    yield gauge(
        "meteo_air_quality_index",
        "Newest air quality index, by its provider's scale",
        ("station", "scale"),
        samples=(
            ((each.station_id, each.air_quality["scale"]), each.air_quality["index"])
            for each in stations
            if each.air_quality
        ),
    )
