"""The stack's servers, and what a benchmark makes there and removes again: topics, databases, directories, tables."""

from __future__ import annotations

import os
import posixpath
import uuid
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import happybase
import psycopg2
import yaml
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from meteo_cli.stack import read_stack
from meteo_common.database import migrate
from meteo_common.settings import Settings, load_settings
from meteo_hadoop.webhdfs import FileSystem

PARTITIONS = 3
ASKED_SETTINGS = ("server_version", "shared_buffers", "max_wal_size", "fsync", "synchronous_commit")


class Servers:
    """Makes topics, databases, directories and tables of a benchmark's own; leaving the context removes them."""

    def __init__(self) -> None:
        stack = read_stack()
        self.directory = stack.directory
        secrets = yaml.safe_load(stack.secrets_file.read_text("utf-8"))
        self.settings = load_settings()
        own = parse_dsn(self.settings.database_url.get_secret_value())
        superuser = {"user": "postgres", "password": secrets["postgres_superuser_password"], "dbname": "postgres"}
        self._superuser = psycopg2.connect(make_dsn(**{**own, **superuser}))
        self._superuser.autocommit = True
        self._databases: list[str] = []
        self._topics: list[str] = []
        self._directories: list[str] = []
        self._tables: list[str] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in list(self._databases):
            self.drop(name)
        self._superuser.close()
        for directory in self._directories:
            FileSystem(self.settings).delete_tree(directory)
        if self._tables:
            with closing(happybase.Connection(self.settings.hbase_host, self.settings.hbase_port)) as hbase:
                for name in {table.decode() for table in hbase.tables()} & set(self._tables):
                    hbase.delete_table(name, disable=True)
        with suppress(KafkaError):
            admin = self._admin()
            admin.delete_topics(self._topics)
            admin.close()

    def make_topic(self) -> Settings:
        """Return the settings of a new, empty topic."""
        name = f"bench-{uuid.uuid4().hex[:10]}"
        admin = self._admin()
        admin.create_topics([NewTopic(name, PARTITIONS, 1)])
        admin.close()
        self._topics.append(name)
        return self.settings.model_copy(update={"topic_name": name})

    def make_database(self, settings: Settings) -> Settings:
        """Return the settings with a new database that has the schema and no rows."""
        name = f"bench_{uuid.uuid4().hex[:10]}"
        own = parse_dsn(settings.database_url.get_secret_value())
        self._as_superuser(f"CREATE DATABASE {name} OWNER {own['user']}")
        self._databases.append(name)
        host, user = f"{own['host']}:{own.get('port', 5432)}", f"{own['user']}:{own['password']}"
        made = settings.model_copy(update={"database_url": SecretStr(f"postgresql://{user}@{host}/{name}")})
        connection = open_connection(made)
        migrate(connection)
        connection.close()
        return made

    def make_directory(self, settings: Settings) -> Settings:
        """Return the settings with a new, empty HDFS_BASE_PATH."""
        path = f"{posixpath.dirname(settings.hdfs_base_path)}/bench_{uuid.uuid4().hex[:10]}"
        self._directories.append(path)
        FileSystem(settings).make_directory(path)
        return settings.model_copy(update={"hdfs_base_path": path})

    def make_table(self) -> Settings:
        """Return the settings with an HBASE_TABLE that is made by whoever connects to it."""
        name = f"bench_{uuid.uuid4().hex[:10]}"
        self._tables.append(name)
        return self.settings.model_copy(update={"hbase_table": name})

    def settle(self) -> None:
        """Write to disk what earlier work left behind, so that no arm pays for another's."""
        self._as_superuser("CHECKPOINT")

    def drop(self, name: str) -> None:
        """Remove a database."""
        self._as_superuser(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._databases.remove(name)

    def facts(self) -> dict[str, Any]:
        """Return the settings of PostgreSQL that decide its speed."""
        facts = {}
        with self._superuser.cursor() as cursor:
            for name in ASKED_SETTINGS:
                cursor.execute(f"SHOW {name}")
                facts[f"postgresql {name}"] = (cursor.fetchone() or ("",))[0]
        return facts

    def postmaster(self) -> int:
        """Return the process id of PostgreSQL's first process, whose children serve the connections."""
        with self._superuser.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone() or (0,)
        status = Path(f"/proc/{backend}/stat")
        return int(status.read_text().rpartition(")")[2].split()[1]) if status.exists() else 0

    def _as_superuser(self, statement: str) -> None:
        with self._superuser.cursor() as cursor:
            cursor.execute(statement)

    def _admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers.split(","))


def open_connection(settings: Settings) -> Any:
    """Return a connection to the settings' database."""
    return psycopg2.connect(settings.database_url.get_secret_value())


def database_name(settings: Settings) -> str:
    """Return the name of the settings' database."""
    return str(parse_dsn(settings.database_url.get_secret_value())["dbname"])


def environment(settings: Settings) -> dict[str, str]:
    """Return what makes a program of ours speak to this topic, database, directory and table."""
    inherited = {name: value for name, value in os.environ.items() if name != "METEO_METRICS_PORT"}
    return {
        **inherited,
        "BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "TOPIC_NAME": settings.topic_name,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "HDFS_BASE_PATH": settings.hdfs_base_path,
        "HBASE_TABLE": settings.hbase_table,
    }
