"""What a check makes on a stack's servers: seen, put there as another check would, and taken away."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import happybase
import psycopg2
import requests
from kafka import KafkaAdminClient

MARK = "meteo_check_"


@dataclass(frozen=True)
class Made:
    """The servers at these settings."""

    settings: Mapping[str, str]

    def names(self) -> dict[str, set[str]]:
        """Return the names of what is there, by server."""
        with closing(self._kafka()) as kafka, closing(self._hbase()) as hbase:
            found = {
                "kafka": set(kafka.list_topics()),
                "postgres": {str(name) for (name,) in self._sql("SELECT tablename FROM pg_tables", fetch=True)},
                "hdfs": {each["pathSuffix"] for each in self._list_temporary()},
                "hbase": {name.decode() for name in hbase.tables()},
            }
        return {server: {name for name in names if MARK in name} for server, names in found.items()}

    def put(self, name: str) -> None:
        """Make a topic, a table, a directory with a file, and a table of HBase of this name."""
        with closing(self._kafka()) as kafka:
            kafka.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        self._sql(f"CREATE TABLE {name} (word TEXT)")
        self._webhdfs("PUT", f"/tmp/_{name}_0/file", "CREATE", data=b"left")
        with closing(self._hbase()) as hbase:
            hbase.create_table(name, {"aggregates": {}})

    def take_away(self, name: str) -> None:
        """Delete all that `put` made."""
        with closing(self._kafka()) as kafka:
            kafka.delete_topics([name])
        self._sql(f"DROP TABLE {name}")
        self._webhdfs("DELETE", f"/tmp/_{name}_0", "DELETE&recursive=true")
        with closing(self._hbase()) as hbase:
            hbase.delete_table(name, disable=True)

    def _kafka(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.settings["BOOTSTRAP_SERVERS"])

    def _hbase(self) -> happybase.Connection:
        return happybase.Connection(self.settings["HBASE_HOST"], int(self.settings["HBASE_PORT"]))

    def _sql(self, statement: str, *, fetch: bool = False) -> list[tuple[object, ...]]:
        with (
            closing(psycopg2.connect(self.settings["DATABASE_URL"])) as database,
            database,
            database.cursor() as cursor,
        ):
            cursor.execute(statement)
            return cursor.fetchall() if fetch else []

    def _list_temporary(self) -> list[dict[str, str]]:
        answer = self._webhdfs("GET", "/tmp", "LISTSTATUS")
        found: list[dict[str, str]] = answer.json()["FileStatuses"]["FileStatus"]
        return found

    def _webhdfs(self, method: str, path: str, operation: str, data: bytes | None = None) -> requests.Response:
        address = f"{self.settings['HDFS_URL']}/webhdfs/v1{path}?op={operation}&user.name={self.settings['HDFS_USER']}"
        answer = requests.request(method, address, data=data, timeout=30)
        answer.raise_for_status()
        return answer
