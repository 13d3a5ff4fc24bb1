"""The peer Spark: a session in a process of its own; Structured Streaming, reading the same topic, writing the rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psycopg2.extensions import parse_dsn

from meteo_common.errors import TerminalError, UnreachableError, UsageError
from meteo_common.settings import Settings, meteo_home

FOLDER = Path(__file__).parent / "spark"
VERSION = "4.1.3"


class Spark:
    """A Spark session that is asked for one query after the other, by lines of JSON to a script of the folder `spark`.

    Its start is never part of a figure, and one process serves all runs, so that its code is compiled when it counts.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        if find_spec("pyspark") is None:
            raise UsageError("Spark is not installed: run it as ./meteo bench, or leave the peer out (--without-peer).")
        # A file: Spark, which warns now and then, would wait for a reader of a pipe.
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, FOLDER / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
        )
        self.pid = self._process.pid
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(timeout=30)
            self._words.seek(0)
            words = self._words.read().strip().splitlines()
            raise TerminalError(f"Spark ended: {' '.join(words[-3:])}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class SparkPeer(Spark):
    """Structured Streaming from Kafka into PostgreSQL."""

    def __init__(self) -> None:
        super().__init__("stream.py", str(_jars()))

    def write(self, settings: Settings, number: int) -> dict[str, float]:
        """Take the whole topic into the table; return rows/s from the query's start to its end."""
        own = parse_dsn(settings.database_url.get_secret_value())
        options = "stringtype=unspecified&reWriteBatchedInserts=true"
        order = {
            "bootstrap_servers": settings.bootstrap_servers,
            "topic": settings.topic_name,
            "url": f"jdbc:postgresql://{own['host']}:{own.get('port', 5432)}/{own['dbname']}?{options}",
            "user": own["user"],
            "password": own["password"],
        }
        return {"rows_per_second": number / self.ask(order)["seconds"]}


def _jars() -> Path:
    """Return the directory of the jars that Spark needs beside its own, fetched once."""
    target = meteo_home() / "jars" / f"bench-spark-{VERSION}"
    if not target.is_dir():
        work = target.with_name(f"{target.name}.{os.getpid()}")
        work.mkdir(parents=True)
        shutil.copy(FOLDER / "pom.xml", work)
        command = ["mvn", "-B", "-q", "-f", str(work / "pom.xml"), f"-Ddestination={work}", "package"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            shutil.rmtree(work)
            raise UnreachableError(f"Maven could not fetch Spark's jars: {' '.join(ran.stdout.split())[-300:]}")
        work.rename(target)
    return target / "lib"
