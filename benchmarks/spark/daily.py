"""The daily aggregates by Spark, one query for each line of JSON on standard input: `{"paths": [...]}`.

Generous to Spark: it counts no bad lines, and as many partitions as cores are shuffled instead of 200.
"""

import json
import logging
import sys
import time
from typing import Any

from pyspark.sql import SparkSession

SCHEMA = """
    date_time TIMESTAMP, partition INT, msg_offset BIGINT, topic_generation INT,
    value STRUCT<normaliser_version INT, source STRING, station_id STRING, city STRING, country STRING,
        collected_at TIMESTAMP,
        observation STRUCT<temperature_celsius DOUBLE, humidity_percent DOUBLE, pressure_hpa DOUBLE,
            wind_speed_mps DOUBLE, wind_direction_degrees DOUBLE, precipitation_1h_mm DOUBLE>,
        air_quality STRUCT<scale STRING, observed_at TIMESTAMP, index DOUBLE>,
        forecast ARRAY<STRUCT<valid_at TIMESTAMP, hours INT, precipitation_mm DOUBLE>>>
"""
WINNERS = """
    SELECT to_date(at) AS day, station, at, message.* FROM (
        SELECT value.station_id AS station, date_time AS at, max_by(value, struct(value.collected_at,
            value.normaliser_version, coalesce(topic_generation, 1), partition, msg_offset)) AS message
        FROM rows GROUP BY value.station_id, date_time)
"""
QUERY = """
WITH hours AS (
    SELECT day, station, max_by(observation.precipitation_1h_mm, at) AS mm
    FROM winners WHERE observation.precipitation_1h_mm IS NOT NULL
    GROUP BY day, station, unix_timestamp(at) DIV 3600),
rain AS (SELECT day, station, sum(mm) AS rain FROM hours GROUP BY day, station),
steps AS (
    SELECT day, station, max_by(step.precipitation_mm, at) AS mm
    FROM (SELECT day, station, at, explode(forecast) AS step FROM winners)
    WHERE step.hours = 3 AND step.precipitation_mm IS NOT NULL AND to_date(step.valid_at) = day
    GROUP BY day, station, step.valid_at),
expected AS (SELECT day, station, sum(mm) AS expected FROM steps GROUP BY day, station),
indices AS (
    SELECT day, station, max(at) AS at, max_by(air_quality.scale, at) AS scale, max_by(air_quality.index, at) AS value
    FROM winners WHERE air_quality.index IS NOT NULL GROUP BY day, station, air_quality.observed_at),
scales AS (SELECT day, station, max_by(scale, at) AS scale FROM indices GROUP BY day, station),
air AS (SELECT day, station, scale, avg(value) AS aqi FROM indices JOIN scales USING (day, station, scale)
    GROUP BY day, station, scale),
days AS (
    SELECT day, station, max_by(struct(city, country, source), at) AS last, count(*) AS observations,
        avg(observation.temperature_celsius) AS temperature_avg,
        min(observation.temperature_celsius) AS temperature_min,
        max(observation.temperature_celsius) AS temperature_max, avg(observation.humidity_percent) AS humidity,
        avg(observation.pressure_hpa) AS pressure, avg(observation.wind_speed_mps) AS speed,
        sum(observation.wind_speed_mps) FILTER (WHERE observation.wind_direction_degrees IS NOT NULL) AS blown,
        sum(observation.wind_speed_mps * sin(radians(observation.wind_direction_degrees))) AS east,
        sum(observation.wind_speed_mps * cos(radians(observation.wind_direction_degrees))) AS north,
        min(at) AS first_at, max(at) AS last_at
    FROM winners GROUP BY day, station)
SELECT 1 AS aggregate_version, string(day) AS date, station AS station_id, last.city, last.country, last.source,
    observations, temperature_avg AS temperature_avg_celsius, temperature_min AS temperature_min_celsius,
    temperature_max AS temperature_max_celsius, rain AS precipitation_1h_sum_mm, expected AS precipitation_3h_sum_mm,
    aqi AS aqi_avg, scale AS aqi_scale, humidity AS humidity_avg_percent, pressure AS pressure_avg_hpa,
    speed AS wind_speed_avg_mps,
    CASE WHEN blown > 0 AND sqrt(east * east + north * north) >= 1e-9 * blown
        THEN (degrees(atan2(east, north)) + 360) % 360 END AS wind_direction_mean_degrees,
    date_format(to_utc_timestamp(first_at, current_timezone()), "yyyy-MM-dd'T'HH:mm:ss'Z'") AS first_observed_at,
    date_format(to_utc_timestamp(last_at, current_timezone()), "yyyy-MM-dd'T'HH:mm:ss'Z'") AS last_observed_at
FROM days LEFT JOIN rain USING (day, station) LEFT JOIN expected USING (day, station) LEFT JOIN air USING (day, station)
ORDER BY date, station_id
"""


def main() -> None:
    """Serve orders until standard input ends; says `{}` when ready."""
    logging.disable(logging.CRITICAL)
    zone, cores = sys.argv[1:]
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .appName("meteo-bench")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.session.timeZone", zone)
        .config("spark.sql.shuffle.partitions", cores)
        .getOrCreate()
    )
    _say({})
    for line in sys.stdin:
        started = time.monotonic()
        rows = _aggregate(spark, json.loads(line)["paths"])
        _say({"seconds": time.monotonic() - started, "rows": rows})


def _aggregate(spark: SparkSession, paths: list[str]) -> list[dict[str, Any]]:
    spark.read.schema(SCHEMA).json(paths).createOrReplaceTempView("rows")
    # Kept in memory, because the query reads the winners four times.
    winners = spark.sql(WINNERS).persist()
    winners.createOrReplaceTempView("winners")
    try:
        return [row.asDict() for row in spark.sql(QUERY).collect()]
    finally:
        winners.unpersist()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
