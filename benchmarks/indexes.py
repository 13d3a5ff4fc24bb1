"""What indexes for queries cost on ingest: COPY into `weather` with none, with the station's, with one over JSONB."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from io import BytesIO
from typing import Any

from benchmarks.measuring import Measured, Options, ratio, take_turns
from benchmarks.servers import Servers, database_name, open_connection
from benchmarks.workload import COPY, SEED, Made, copy_forms, make, small_answers
from meteo_common.message import decode, encode
from meteo_consumer.months import Months

MESSAGES = 200_000
CHUNK = 1 << 20
SPOILED = 0.02
"""The share of messages of which the producer set a value to null."""

CONTAINMENT = {
    "whole": "value",
    "measured": "(value - 'raw' - 'forecast')",
    "quality": "(value->'quality')",
}
"""What an index for containment (@>) may cover, by its arm's ending."""


def measure(options: Options) -> Measured:
    """Measure 200,000 messages of 1.2 KB in batches of 10,000, each arm into a database of its own."""
    records = _spoil(make(*small_answers(), options.messages or MESSAGES))
    forms = copy_forms(records)
    moments = [records[0].observed_at, records[-1].observed_at]
    with Servers() as servers:
        arms: dict[str, Callable[[], dict[str, float]]] = {
            "record": partial(_copy, servers, forms, moments, station=False, over=None),
            "station": partial(_copy, servers, forms, moments, station=True, over=None),
        }
        for ending, over in CONTAINMENT.items():
            arms[f"containment_{ending}"] = partial(_copy, servers, forms, moments, station=True, over=over)
        measured = Measured(runs=take_turns(arms, options.runs), notes=servers.facts())
    figure = "rows_per_second"
    measured.ratios["ratio_of_station_to_record"] = ratio(measured.runs, ("station", figure), ("record", figure))
    for ending in CONTAINMENT:
        above = (f"containment_{ending}", figure)
        measured.ratios[f"ratio_of_{ending}_to_station"] = ratio(measured.runs, above, ("station", figure))
    measured.notes["message_bytes"] = sum(len(record.value) for record in records) // len(records)
    return measured


def _spoil(records: Sequence[Made]) -> list[Made]:
    """Return the records, some of them with an entry in `quality`."""
    chance = random.Random(SEED)  # noqa: S311
    spoiled = []
    for record in records:
        if chance.random() < SPOILED:
            message = decode(record.value)
            message.quality = [chance.choice(["wind_gust_mps:out_of_range", "visibility_metres:not_a_number"])]
            spoiled.append(Made(record.partition, record.offset, record.observed_at, record.key, encode(message)))
        else:
            spoiled.append(record)
    return spoiled


def _copy(
    servers: Servers, forms: Sequence[bytes], moments: Sequence[Any], *, station: bool, over: str | None
) -> dict[str, float]:
    """Return rows/s through one connection, and the indexes' bytes in a row, for the table with these indexes."""
    settings = servers.make_database(servers.settings)
    with closing(open_connection(settings)) as connection, connection.cursor() as cursor:
        # What a newer schema adds is not to be measured under an old name.
        cursor.execute("DROP INDEX IF EXISTS weather_station, weather_quality")
        if station:
            cursor.execute("CREATE INDEX weather_station ON weather ((value->>'station_id'), date_time DESC)")
        if over:
            cursor.execute(f"CREATE INDEX weather_containment ON weather USING gin ({over} jsonb_path_ops)")
        connection.commit()
        Months(connection).ensure(moments)
        servers.settle()
        started = time.monotonic()
        for form in forms:
            cursor.copy_expert(COPY, BytesIO(form), CHUNK)
            connection.commit()
        # What an index has put off until later belongs to its cost.
        cursor.execute(
            "SELECT gin_clean_pending_list(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE relam = (SELECT oid FROM pg_am WHERE amname = 'gin') AND relkind = 'i'"
        )
        connection.commit()
        seconds = time.monotonic() - started
        cursor.execute(
            "SELECT (SELECT count(*) FROM weather), sum(pg_indexes_size(inhrelid)) FROM pg_inherits"
            " WHERE inhparent = 'weather'::regclass"
        )
        rows, size = cursor.fetchone()
    servers.drop(database_name(settings))
    return {"rows_per_second": rows / seconds, "index_bytes_a_row": float(size) / rows}
