"""PostgreSQL → HDFS: an export of one day against a shell's pipe and the obvious exporter; its memory."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from io import BytesIO
from typing import Any

import hdfs

from benchmarks.consuming import METEO
from benchmarks.measuring import Measured, Options, ratio, take_turns
from benchmarks.processes import Accounts, Memory, find
from benchmarks.servers import Servers, environment, open_connection
from benchmarks.workload import COPY, STATIONS, STEP, copy_forms, make, small_answers
from meteo_common.errors import TerminalError
from meteo_common.settings import Settings
from meteo_consumer.months import Months
from meteo_hadoop.export import export_once
from meteo_hadoop.webhdfs import FileSystem

ROWS = 200_000
ROWS_OF_MEMORY = 1_000_000
ROWS_SHARE = 5
"""The obvious exporter takes one in so many rows; its rate does not depend on how many."""
ZONE = "Europe/Paris"
DAY = timedelta(hours=20)
"""The day's rows lie in so many hours of it: it begins in Paris an hour before it does in UTC."""
CHUNK = 1 << 20

TAKEN = """
    INSERT INTO topics (generation, topic_id, name) VALUES (1, gen_random_uuid(), 'bench');
    INSERT INTO positions (topic_id, partition, first_offset, next_offset)
    SELECT topic_id, partition, min(msg_offset), max(msg_offset) + 1 FROM topics, weather GROUP BY 1, 2;
"""
# Offsets grow, times and values come again: no row is looked at here.
MULTIPLY = """
    INSERT INTO weather
    SELECT date_time, msg_offset + n * (SELECT max(msg_offset) + 1 FROM weather), partition, topic_generation, value
    FROM weather, generate_series(1, %s) AS n
"""
FORGET = """
    DELETE FROM export_plan_days; DELETE FROM export_plans; DELETE FROM export_positions; DELETE FROM days;
    UPDATE positions SET next_offset = (SELECT max(msg_offset) + 1 FROM weather WHERE partition = positions.partition)
"""
PLAIN = "SELECT date_time, partition, msg_offset, value FROM weather"
PIPE = """
    set -o pipefail
    psql -Xq -c {copy} {database} | curl -sSf -T - "$(curl -sS -o /dev/null -w '%{{redirect_url}}' -X PUT {url})"
"""


def measure(options: Options) -> Measured:
    """Measure rates (rows/s) over one day of rows of 1.2 KB, and once the export's memory over a larger day."""
    rows = options.messages or ROWS
    larger = options.messages or ROWS_OF_MEMORY
    with Servers() as servers:
        settings = servers.make_database(servers.settings.model_copy(update={"weather_timezone": ZONE}))
        notes = servers.facts() | {"rows": rows, "message_bytes": _fill(settings, rows)}
        bench = Bench(servers, settings, rows)
        arms = {"export": bench.export, "command": bench.command, "pipe": bench.pipe, "rows": bench.rows}
        measured = Measured(take_turns(arms, options.runs), notes=notes)
        larger -= larger % rows
        _execute(settings, MULTIPLY, (larger // rows - 1,))
        told = Bench(servers, settings, larger).command()
    measured.notes["memory"] = {
        "rows": larger,
        "export": {figure: round(value, 1) for figure, value in told.items() if figure.startswith("memory")},
    }
    figure = "rows_per_second"
    for above, ending in (("export", ""), ("command", "_with_start")):
        for below in ("pipe", "rows"):
            measured.ratios[f"ratio_to_{below}{ending}"] = ratio(measured.runs, (above, figure), (below, figure))
    return measured


class Bench:
    """The arms over one database that holds one day; each writes into a directory of its own."""

    def __init__(self, servers: Servers, settings: Settings, rows: int) -> None:
        self._servers = servers
        self._settings = settings
        self._number = rows
        self._accounts = Accounts(
            {
                "postgresql": servers.postmaster(),
                "namenode": find("NameNode", str(servers.directory)),
                "datanode": find("DataNode", str(servers.directory)),
            }
        )

    def export(self) -> dict[str, float]:
        """Export as the service does it, whose process runs already: from planning to the closed plan."""
        with self._fresh_directory() as settings:
            return self._counted(lambda: export_once(settings).rows)

    def command(self) -> dict[str, float]:
        """Run `meteo export`, from the start of its process to its end."""
        with self._fresh_directory() as settings:
            memories = []

            def run() -> int:
                running = subprocess.Popen(
                    [METEO, "export", "--once"],
                    env=environment(settings) | {"WEATHER_TIMEZONE": ZONE},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                memories.append(Memory(running.pid))
                output, _ = running.communicate()
                found = re.search(r"exported (\d+) rows, .*, into 1 day ", output)
                if running.returncode or not found:
                    raise TerminalError(f"meteo export failed: {output.strip()[-300:]}")
                return int(found[1])

            figures = self._counted(run)
        (memory,) = memories
        peaks = {"peak": memory.peak, "at_quarter": memory.at(0.25), "at_end": memory.at(1.0)}
        return {**figures, **{f"memory_{name}_mib": value for name, value in peaks.items()}}

    def pipe(self) -> dict[str, float]:
        """Be a shell: one COPY by psql into one PUT by curl, under the final name, with nothing checked or noted."""
        with self._fresh_directory() as settings:
            path = f"{settings.hdfs_base_path}/weather.csv"
            url = f"{settings.hdfs_url}/webhdfs/v1{path}?op=CREATE&overwrite=true&user.name={settings.hdfs_user}"
            words = {
                "copy": f"COPY ({PLAIN}) TO STDOUT",
                "database": settings.database_url.get_secret_value(),
                "url": url,
            }
            script = PIPE.format(**{name: shlex.quote(word) for name, word in words.items()})

            def run() -> int:
                ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
                if ran.returncode:
                    raise TerminalError(f"psql | curl failed: {ran.stderr.strip()[-300:]}")
                return self._number

            figures = self._counted(run)
            lines = FileSystem(settings).read(path).count(b"\n")
        if lines != self._number:
            raise TerminalError(f"The pipe wrote {lines} lines, expected {self._number}.")
        return figures

    def rows(self) -> dict[str, float]:
        """Be the obvious exporter: each row fetched by a cursor, made JSON and written by the library."""
        number = max(1, self._number // ROWS_SHARE)
        with self._fresh_directory() as settings, closing(open_connection(settings)) as connection:

            def run() -> int:
                client = hdfs.InsecureClient(settings.hdfs_url, user=settings.hdfs_user)
                with (
                    connection.cursor() as cursor,
                    client.write(f"{settings.hdfs_base_path}/weather.json", encoding="utf-8") as writer,
                ):
                    cursor.execute(f"{PLAIN} LIMIT {number}")
                    for date_time, partition, msg_offset, value in cursor:
                        row = {
                            "date_time": date_time.isoformat(),
                            "partition": partition,
                            "msg_offset": msg_offset,
                            "value": value,
                        }
                        writer.write(json.dumps(row) + "\n")
                return number

            return self._counted(run, number)

    def _counted(self, run: Callable[[], int], expected: int | None = None) -> dict[str, float]:
        """Return the rate of what returns its rows, and whose processor time it took."""
        used: dict[str, float] = {}
        with self._accounts.counting(used):
            started = time.monotonic()
            rows = run()
            seconds = time.monotonic() - started
        if rows != (expected or self._number):
            raise TerminalError(f"{rows} rows were written, expected {expected or self._number}.")
        return {"rows_per_second": rows / seconds, **used}

    @contextmanager
    def _fresh_directory(self) -> Iterator[Settings]:
        """Let nothing have been exported."""
        settings = self._servers.make_directory(self._settings)
        _execute(settings, FORGET)
        self._servers.settle()
        try:
            yield settings
        finally:
            FileSystem(settings).delete_tree(settings.hdfs_base_path)


def _fill(settings: Settings, rows: int) -> int:
    """Fill `weather` with one day's rows as the consumer leaves them; return a message's bytes."""
    step = timedelta(seconds=max(1, DAY // timedelta(seconds=1) * STATIONS // rows))
    records = make(*small_answers(), rows, min(step, STEP))
    with closing(open_connection(settings)) as connection, connection.cursor() as cursor:
        Months(connection).ensure({record.observed_at for record in records})
        for form in copy_forms(records):
            cursor.copy_expert(COPY, BytesIO(form), CHUNK)
        cursor.execute(TAKEN)
        connection.commit()
    # Settled as rows are that were read before: the first reader would note for each that its writer has committed.
    _execute(settings, "VACUUM ANALYZE weather")
    return sum(len(record.value) for record in records) // rows


def _execute(settings: Settings, statement: str, parameters: tuple[Any, ...] = ()) -> None:
    with closing(open_connection(settings)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement, parameters)
