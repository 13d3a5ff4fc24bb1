"""The dashboard Weather: one place, its weather now and over time, and its forecast against what came."""

from __future__ import annotations

from typing import Any

from meteo_grafana.boards import Row, board, place_from_postgresql
from meteo_grafana.panels import BAD, GOOD, WARN, columns, curve, figures, graph, listing, rose
from meteo_grafana.queries import Sql, now, now_as_rows, rows, series
from meteo_grafana.wind import CLASSES, by_sector, petals

DESCRIPTION = "The weather of a place: what was observed, from PostgreSQL and Prometheus, and what had been forecast."
NOW = '{station="$station"}'
FROM_PLACE = "FROM weather WHERE value->>'station_id' = '$station'"
# Asking again adds rows, never observations: of several rows of a time the one collected last counts.
ONCE = "ORDER BY date_time, (value->>'collected_at')::timestamptz DESC"

# The steps of all forecasts that may say something about the range; one reaches 5 days ahead.
STEPS = """\
steps AS (
    SELECT (value->>'collected_at')::timestamptz AS collected_at,
           (step->>'valid_at')::timestamptz AS valid_at,
           (step->>'temperature_celsius')::float8 AS celsius,
           (step->>'precipitation_mm')::float8 AS millimetres
    FROM weather, jsonb_array_elements(value->'forecast') AS _(step)
    WHERE value->>'station_id' = '$station'
      AND date_time BETWEEN $__timeFrom()::timestamptz - interval '5 days' AND $__timeTo()::timestamptz
)"""
# A polled minute is not the forecast's full hour: the mean of the half hours around it is compared.
CAME = f"""\
came AS (
    SELECT to_timestamp(round(extract(epoch FROM date_time) / 3600) * 3600) AS hour,
           avg((value#>>'{{observation,temperature_celsius}}')::float8) AS celsius
    {FROM_PLACE} AND $__timeFilter(date_time) GROUP BY 1
)"""
# An hour's precipitation is its last answer that has one: a poll every ten minutes must not count an hour six times.
HOURS = f"""\
hours AS (
    SELECT DISTINCT ON (1) date_trunc('hour', date_time) AS hour,
           (value#>>'{{observation,precipitation_1h_mm}}')::float8 AS millimetres
    {FROM_PLACE} AND $__timeFilter(date_time) AND value#>>'{{observation,precipitation_1h_mm}}' IS NOT NULL
    ORDER BY 1, date_time DESC, (value->>'collected_at')::timestamptz DESC
)"""


def observed(**fields: str) -> Sql:
    """Return the means of these fields of the observation, by their names in the legend, at the graph's resolution."""
    inner = ",\n           ".join(f"(value#>>'{{observation,{field}}}')::float8 AS {field}" for field in fields)
    outer = ",\n       ".join(f'avg({field}) AS "{name}"' for field, name in fields.items())
    return series(f"""\
WITH once AS (
    SELECT DISTINCT ON (date_time) date_time,
           {inner}
    {FROM_PLACE} AND $__timeFilter(date_time)
    {ONCE}
)
SELECT $__timeGroupAlias(date_time, $__interval),
       {outer}
FROM once GROUP BY 1 ORDER BY 1""")


def weather() -> dict[str, Any]:
    """Return the dashboard."""
    rows_of_panels = [_now(), _air(), _wind(), _water(), _forecast(), _quality()]
    return board("Weather", DESCRIPTION, "now-7d", rows_of_panels, place_from_postgresql())


def _now() -> Row:
    return "$station now", [
        figures(
            "Temperature",
            "The newest observation's temperature, as the page's metrics have it.",
            "celsius",
            now(f"meteo_weather_temperature_celsius{NOW}", "temperature"),
            steps=((None, "blue"), (5, "light-blue"), (15, GOOD), (25, WARN), (32, BAD)),
            decimals=1,
        ),
        figures(
            "Humidity",
            "Relative humidity of the newest observation.",
            "percent",
            now(f"meteo_weather_humidity_percent{NOW}", "humidity"),
            decimals=0,
        ),
        figures(
            "Wind",
            "Mean wind of the newest observation.",
            "velocityms",
            now(f"meteo_weather_wind_speed_mps{NOW}", "wind"),
            steps=((None, GOOD), (10.8, WARN), (17.2, BAD)),
            decimals=1,
        ),
        figures(
            "Precipitation, last hour",
            "Rain and melted snow of the hour before the newest observation.",
            "lengthmm",
            now(f"meteo_weather_precipitation_1h_mm{NOW}", "precipitation"),
            decimals=1,
        ),
        figures(
            "Air quality index",
            "On the provider's scale, which stands below the figure: lower is better on each of them.",
            "none",
            now(f"meteo_air_quality_index{NOW}", "{{scale}}"),
            decimals=0,
        ),
        figures(
            "Age",
            "How long ago the newest observation in PostgreSQL was made.",
            "s",
            now('time() - meteo_newest_observation_timestamp_seconds{tier="postgresql",station="$station"}', "age"),
            steps=((None, GOOD), (1800, WARN), (7200, BAD)),
            decimals=0,
        ),
    ]


def _air() -> Row:
    return "Air", [
        graph(
            "Temperature",
            "Measured, and as it feels with the wind and the humidity that there were.",
            "celsius",
            observed(temperature_celsius="temperature", apparent_temperature_celsius="feels like"),
        ),
        graph(
            "Humidity and clouds",
            "Relative humidity, and the part of the sky that is covered.",
            "percent",
            observed(humidity_percent="humidity", cloud_cover_percent="cloud cover"),
            low=0,
            high=100,
        ),
        graph(
            "Pressure",
            "Reduced to sea level where the provider does so.",
            "pressurehpa",
            observed(pressure_hpa="pressure"),
        ),
    ]


def _wind() -> Row:
    return "Wind", [
        rose(
            "Wind rose",
            "How often the wind came from where, in % of the observations that have a direction; north is up. Calm "
            "(under 0.5 m/s) is left out. The classes are those of ./meteo climate.",
            "percent",
            petals(),
            ("← west      east →", "← south      north →"),
        ),
        columns(
            "Wind by direction",
            "The wind rose unrolled: the share of each direction, stacked by speed.",
            "percent",
            by_sector(),
            "from",
            span=7,
            height=12,
            stacked=True,
            colours=dict(CLASSES),
        ),
        graph(
            "Wind and gusts",
            "Mean speed, and the strongest gust of the time before.",
            "velocityms",
            observed(wind_speed_mps="wind", wind_gust_mps="gusts"),
            height=12,
            low=0,
        ),
    ]


def _water() -> Row:
    return "Precipitation", [
        graph(
            "Precipitation by hour",
            "Rain and melted snow of each hour: the last answer of the hour that has a value.",
            "lengthmm",
            series(f'WITH {HOURS}\nSELECT hour AS time, millimetres AS "precipitation" FROM hours ORDER BY 1'),
            span=12,
            bars=True,
            low=0,
        ),
        columns(
            "Precipitation by day: forecast against what came",
            "What fell on each day of the platform's time zone, and what the forecasts of the day before had said. "
            "Days at the edges of the range are not whole.",
            "lengthmm",
            rows(f"""\
WITH {HOURS}, {STEPS},
foretold AS (
    SELECT DISTINCT ON (valid_at) valid_at, millimetres FROM steps
    WHERE $__timeFilter(valid_at) AND collected_at <= valid_at - interval '24 hours' AND millimetres IS NOT NULL
    ORDER BY valid_at, collected_at DESC
)
SELECT to_char(day, 'Dy DD Mon') AS day, sum(fell) AS "came", sum(said) AS "forecast the day before"
FROM (
    SELECT date_trunc('day', hour) AS day, millimetres AS fell, NULL AS said FROM hours
    UNION ALL
    SELECT date_trunc('day', valid_at - interval '1 second'), NULL, millimetres FROM foretold
) AS both_sides
GROUP BY both_sides.day ORDER BY both_sides.day"""),
            "day",
            span=12,
        ),
    ]


def _forecast() -> Row:
    return "Forecast", [
        graph(
            "Temperature: forecast against what came",
            "What was observed, and what the forecast of one and of three days before had said for that hour.",
            "celsius",
            observed(temperature_celsius="came"),
            _said(24, "forecast 1 day before"),
            _said(72, "forecast 3 days before"),
        ),
        columns(
            "Error of the forecast",
            "Mean distance between the forecast temperature and the observed one, by how far ahead it had looked.",
            "celsius",
            rows(f"""\
WITH {STEPS}, {CAME},
compared AS (
    SELECT width_bucket(extract(epoch FROM valid_at - collected_at) / 3600, ARRAY[6, 12, 24, 48, 72, 96]) AS ahead,
           abs(steps.celsius - came.celsius) AS distance
    FROM steps JOIN came ON hour = valid_at
)
SELECT (ARRAY['to 6 h', '6–12 h', '12–24 h', '1–2 days', '2–3 days', '3–4 days', 'over 4 days'])[ahead + 1] AS ahead,
       avg(distance) AS "mean error"
FROM compared GROUP BY compared.ahead ORDER BY compared.ahead"""),
            "ahead",
        ),
        curve(
            "The next five days",
            "Temperature by the newest forecast; its hours are counted from when it was collected.",
            "celsius",
            rows(f"""\
SELECT extract(epoch FROM (step->>'valid_at')::timestamptz - collected_at)::float8 / 3600 AS "hours ahead",
       (step->>'temperature_celsius')::float8 AS "temperature"
FROM (
    SELECT (value->>'collected_at')::timestamptz AS collected_at, value->'forecast' AS forecast
    {FROM_PLACE} AND $__timeFilter(date_time) AND jsonb_array_length(value->'forecast') > 0
    ORDER BY date_time DESC, collected_at DESC LIMIT 1
) AS newest, jsonb_array_elements(forecast) AS _(step)
ORDER BY 1"""),
            "hours ahead",
        ),
    ]


def _said(hours: int, name: str) -> Sql:
    return series(f"""\
WITH {STEPS}
SELECT DISTINCT ON (valid_at) valid_at AS time, celsius AS "{name}"
FROM steps WHERE $__timeFilter(valid_at) AND collected_at <= valid_at - interval '{hours} hours'
ORDER BY valid_at, collected_at DESC""")


def _quality() -> Row:
    return "Air quality, and all places", [
        graph(
            "Pollutants",
            "Concentrations as the provider gives them, each by its own name.",
            "conμgm3",
            series("""\
SELECT DISTINCT ON (1, 2) (value#>>'{air_quality,observed_at}')::timestamptz AS time, component AS metric,
       amount::float8 AS amount
FROM weather, jsonb_each_text(value#>'{air_quality,components_ugm3}') AS _(component, amount)
WHERE value->>'station_id' = '$station' AND $__timeFilter(date_time) AND jsonb_typeof(value->'air_quality') = 'object'
  AND amount IS NOT NULL
ORDER BY 1, 2, (value->>'collected_at')::timestamptz DESC"""),
            low=0,
        ),
        graph(
            "Air quality index",
            "On the provider's scale, which the legend names: lower is better on each of them.",
            "none",
            series(f"""\
SELECT DISTINCT ON (1, 2) (value#>>'{{air_quality,observed_at}}')::timestamptz AS time,
       'scale ' || (value#>>'{{air_quality,scale}}') AS metric, (value#>>'{{air_quality,index}}')::float8 AS index
{FROM_PLACE} AND $__timeFilter(date_time) AND value#>>'{{air_quality,index}}' IS NOT NULL
ORDER BY 1, 2, (value->>'collected_at')::timestamptz DESC"""),
            low=0,
        ),
        listing(
            "All places now",
            "The newest observation of each station that was observed within 48 hours.",
            "none",
            now_as_rows(
                """label_replace({__name__=~"meteo_weather_(temperature_celsius|humidity_percent|wind_speed_mps|pressure_hpa)"},
                "measure", "$1", "__name__", "meteo_weather_(.+)_[a-z]+")""",
                "{{station}} {{measure}}",
            ),
            span=8,
            matrix=("station", "measure"),
            units={
                "temperature": "celsius",
                "humidity": "percent",
                "wind_speed": "velocityms",
                "pressure": "pressurehpa",
            },
        ),
    ]
