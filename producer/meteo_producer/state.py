"""What the producer must not forget, in one SQLite file: it is there when PostgreSQL and Kafka are away.

The service and the commands typed by hand share it, each in its own process.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import Settings, stack_directory

BUSY_SECONDS = 10.0
"""A transaction of another process takes milliseconds; one that takes this long hangs."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    account TEXT, width INTEGER, bucket INTEGER, amount REAL NOT NULL, PRIMARY KEY (account, width, bucket)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pauses (
    account TEXT PRIMARY KEY, until REAL NOT NULL, consecutive INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    account TEXT, path TEXT, refused_at REAL NOT NULL, sentence TEXT NOT NULL, PRIMARY KEY (account, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_topic ON outbox (topic);
CREATE TABLE IF NOT EXISTS refused_answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, answers BLOB NOT NULL, reason TEXT NOT NULL
);
"""


def producer_directory(settings: Settings) -> Path:
    """Return the directory of what the producer keeps."""
    return settings.meteo_state_dir or stack_directory() / "data" / "producer"


class State:
    """The file `producer.sqlite`; without a path one that ends with the process."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.RLock()
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"The producer's state {file} cannot be opened ({error}); expected a file that this user can read and"
                " write: check METEO_STATE_DIR and who owns it."
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> State:
        """Return the state in the producer's directory. Raises UsageError when it cannot be opened."""
        return cls(producer_directory(settings) / "producer.sqlite")

    @classmethod
    def existing(cls, settings: Settings) -> State | None:
        """Return the state, or None where nothing has been produced yet: who only looks makes no file."""
        file = producer_directory(settings) / "producer.sqlite"
        return cls(file) if file.exists() else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements that take effect together, and are on the disk when this ends.

        Raises UnreachableError when the file cannot be written, a full disk for instance.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise UnreachableError(
                    f"The producer's state {self._file} cannot be written ({error}); check its disk and its owner."
                ) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        # Polls run in threads of their own; the lock keeps their transactions apart.
        connection = sqlite3.connect(
            self._file or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        if self._file is not None:
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL would lose the last commits with a power cut: an acknowledged message again at worst, but also a
            # message that was never sent.
            connection.execute("PRAGMA synchronous = FULL")
        for statement in SCHEMA.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        return connection
