"""The peer DuckDB: the same daily aggregates by one statement of SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.days import ZONE
from benchmarks.measuring import CORES

# The winner of several messages, then what the definitions say. `value` is read with only what they need.
QUERY = """
WITH read AS (
    SELECT date_time AS instant, partition, msg_offset, coalesce(topic_generation, 1) AS generation, value AS message
    FROM read_json($paths, format = 'newline_delimited', columns = {
        date_time: 'TIMESTAMPTZ', partition: 'INT', msg_offset: 'BIGINT', topic_generation: 'INT',
        value: 'STRUCT(normaliser_version INT, source VARCHAR, station_id VARCHAR, city VARCHAR, country VARCHAR,
            collected_at TIMESTAMPTZ,
            observation STRUCT(temperature_celsius DOUBLE, humidity_percent DOUBLE, pressure_hpa DOUBLE,
                wind_speed_mps DOUBLE, wind_direction_degrees DOUBLE, precipitation_1h_mm DOUBLE),
            air_quality STRUCT(scale VARCHAR, observed_at TIMESTAMPTZ, "index" DOUBLE),
            forecast STRUCT(valid_at TIMESTAMPTZ, hours INT, precipitation_mm DOUBLE)[])'})),
winners AS MATERIALIZED (
    SELECT instant::DATE AS day, message.station_id AS station, instant, message
    FROM read
    QUALIFY row_number() OVER (PARTITION BY message.station_id, instant ORDER BY message.collected_at DESC,
        message.normaliser_version DESC, generation DESC, partition DESC, msg_offset DESC) = 1),
hours AS (
    SELECT day, station, arg_max(message.observation.precipitation_1h_mm, instant) AS mm
    FROM winners WHERE message.observation.precipitation_1h_mm IS NOT NULL
    GROUP BY day, station, epoch(instant)::BIGINT // 3600),
rain AS (SELECT day, station, sum(mm) AS mm FROM hours GROUP BY ALL),
steps AS (
    SELECT day, station, arg_max(step.precipitation_mm, instant) AS mm
    FROM (SELECT day, station, instant, unnest(message.forecast) AS step FROM winners WHERE len(message.forecast) > 0)
    WHERE step.hours = 3 AND step.precipitation_mm IS NOT NULL AND step.valid_at::DATE = day
    GROUP BY day, station, step.valid_at),
expected AS (SELECT day, station, sum(mm) AS mm FROM steps GROUP BY ALL),
indices AS (
    SELECT day, station, max(instant) AS instant, arg_max(message.air_quality.scale, instant) AS scale,
        arg_max(message.air_quality.index, instant) AS value
    FROM winners WHERE message.air_quality.index IS NOT NULL
    GROUP BY day, station, message.air_quality.observed_at),
scales AS (SELECT day, station, arg_max(scale, instant) AS scale FROM indices GROUP BY ALL),
air AS (SELECT day, station, scale, avg(value) AS value FROM indices JOIN scales USING (day, station, scale)
    GROUP BY ALL),
days AS (
    SELECT day, station, arg_max(message, instant) AS last, count(*) AS observations,
        avg(message.observation.temperature_celsius) AS temperature_avg,
        min(message.observation.temperature_celsius) AS temperature_min,
        max(message.observation.temperature_celsius) AS temperature_max,
        avg(message.observation.humidity_percent) AS humidity, avg(message.observation.pressure_hpa) AS pressure,
        avg(message.observation.wind_speed_mps) AS speed,
        sum(message.observation.wind_speed_mps)
            FILTER (message.observation.wind_direction_degrees IS NOT NULL) AS blown,
        sum(message.observation.wind_speed_mps * sin(radians(message.observation.wind_direction_degrees))) AS east,
        sum(message.observation.wind_speed_mps * cos(radians(message.observation.wind_direction_degrees))) AS north,
        min(instant) AS first_at, max(instant) AS last_at
    FROM winners GROUP BY day, station)
SELECT 1 AS aggregate_version, day::VARCHAR AS date, station AS station_id, last.city AS city,
    last.country AS country, last.source AS source, observations, temperature_avg AS temperature_avg_celsius,
    temperature_min AS temperature_min_celsius, temperature_max AS temperature_max_celsius,
    rain.mm AS precipitation_1h_sum_mm, expected.mm AS precipitation_3h_sum_mm, air.value AS aqi_avg,
    air.scale AS aqi_scale, humidity AS humidity_avg_percent, pressure AS pressure_avg_hpa,
    speed AS wind_speed_avg_mps,
    CASE WHEN blown > 0 AND sqrt(east * east + north * north) >= 1e-9 * blown
        THEN (degrees(atan2(east, north)) + 360) % 360 END AS wind_direction_mean_degrees,
    strftime(first_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ') AS first_observed_at,
    strftime(last_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ') AS last_observed_at
FROM days LEFT JOIN rain USING (day, station) LEFT JOIN expected USING (day, station)
    LEFT JOIN air USING (day, station)
ORDER BY date, station_id
"""


def aggregate_by_duckdb(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the aggregates of all rows of these files."""
    # Imported here: only the environment of benchmarks and tests has it.
    import duckdb

    with duckdb.connect() as database:
        database.execute(f"SET threads = {CORES}; SET timezone = '{ZONE}'; SET enable_progress_bar = false")
        found = database.execute(QUERY, {"paths": list(paths)})
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
