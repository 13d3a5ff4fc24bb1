"""The wind rose: Grafana's own panels have none, so the statement itself draws petals for the XY chart."""

from __future__ import annotations

from meteo_grafana.panels import FAINT
from meteo_grafana.queries import Sql, rows

SECTORS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
CLASSES = (
    ("0.5–2 m/s", "semi-dark-blue"),
    ("2–4 m/s", "light-blue"),
    ("4–6 m/s", "green"),
    ("6–9 m/s", "yellow"),
    ("9–11 m/s", "orange"),
    ("over 11 m/s", "red"),
)
"""Names and colours of the classes of speed, whose bounds are those of the climate's wind rose."""
BOUNDS = "ARRAY[0.5, 2.1, 3.6, 5.7, 8.8, 11.1]"

# Each observation once, with its sector (0 is north) and class (0 is calm).
WINDS = f"""\
winds AS (
    SELECT floor(degrees / 22.5 + 0.5)::int % 16 AS sector, width_bucket(speed, {BOUNDS}) AS class
    FROM (
        SELECT DISTINCT ON (date_time)
            (value#>>'{{observation,wind_speed_mps}}')::float8 AS speed,
            (value#>>'{{observation,wind_direction_degrees}}')::float8 AS degrees
        FROM weather WHERE value->>'station_id' = '$station' AND $__timeFilter(date_time)
        ORDER BY date_time, (value->>'collected_at')::timestamptz DESC
    ) AS once
    WHERE speed IS NOT NULL AND degrees IS NOT NULL
)"""


def petals() -> list[tuple[Sql, str, str]]:
    """Return the statements of the rose, to be drawn in this order: fast winds first, slower ones over them.

    A petal reaches from the middle as far as the share of winds from there, in %, that are of its class or slower.
    It is filled by going to and fro between the middle and its rim, 24 times, which is closer than a line is wide.
    """
    drawn = []
    for number in range(len(CLASSES), 0, -1):
        name, colour = CLASSES[number - 1]
        drawn.append((rows(_petals(number, name)), name, colour))
    drawn.append((rows(_RINGS), "rings", FAINT))
    return drawn


def by_sector() -> Sql:
    """Return the share of winds, in %, by sector and class: the rose unrolled."""
    parts = ",\n    ".join(
        f'100.0 * count(class) FILTER (WHERE class = {number}) / NULLIF(sum(count(class)) OVER (), 0) AS "{name}"'
        for number, (name, _) in enumerate(CLASSES, start=1)
    )
    names = ", ".join(f"'{sector}'" for sector in SECTORS)
    return rows(f"""\
WITH {WINDS}
SELECT (ARRAY[{names}])[compass + 1] AS "from",
    {parts}
FROM generate_series(0, 15) AS compass LEFT JOIN winds ON sector = compass
GROUP BY compass ORDER BY compass""")


def _petals(number: int, name: str) -> str:
    return f"""\
WITH {WINDS},
reach AS (
    SELECT sector, 100.0 * count(*) FILTER (WHERE class BETWEEN 1 AND {number}) / sum(count(*)) OVER () AS radius
    FROM winds GROUP BY sector
)
SELECT CASE WHEN step % 2 = 1 THEN radius ELSE 0 END * sind(sector * 22.5 + 0.75 * (step - 12)) AS x,
       CASE WHEN step % 2 = 1 THEN radius ELSE 0 END * cosd(sector * 22.5 + 0.75 * (step - 12)) AS "{name}"
FROM reach, generate_series(0, 24) AS step
ORDER BY sector, step"""


_RINGS = f"""\
WITH {WINDS},
furthest AS (
    SELECT max(share) AS radius
    FROM (SELECT 100.0 * count(*) / sum(count(*)) OVER () AS share FROM winds GROUP BY sector) AS shares
)
SELECT ring * sind(angle) AS x, ring * cosd(angle) AS "rings"
FROM furthest, generate_series(1, 4) AS number, generate_series(0, 360, 5) AS angle,
     LATERAL (SELECT number * ceil(radius / 4) AS ring) AS rings
ORDER BY ring, angle"""
