"""PostgreSQL: connections that say what is wrong, and the schema's migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.extensions
from psycopg2 import errors
from psycopg2.extensions import parse_dsn

from meteo_common.errors import TerminalError, UnreachableError, UsageError
from meteo_common.settings import Settings

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

# 'mete' in ASCII; one number for all of the schema's migrations.
_MIGRATION_LOCK = 0x6D657465
_NO_URL = "DATABASE_URL is not a libpq URL such as postgresql://USER:PASSWORD@HOST:PORT/DATABASE."


def connect(settings: Settings, service: str) -> Connection:
    """Return a connection whose sessions show times in WEATHER_TIMEZONE.

    Raises UsageError for a wrong address or password, UnreachableError when no server answers.
    """
    url = settings.database_url.get_secret_value()
    try:
        return psycopg2.connect(
            url,
            application_name=f"meteo-{service}",
            connect_timeout=5,
            options=f"-c timezone={settings.weather_timezone}",
            # A server that vanished without a word is noticed after 10 + 3 x 5 s, not after the kernel's 2 hours.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=25000,
        )
    except psycopg2.ProgrammingError:
        # libpq's own words would quote the URL, and the password in it.
        raise UsageError(_NO_URL) from None
    except psycopg2.OperationalError as error:
        text = _first_line(error)
        if any(sign in text for sign in ("authentication failed", "no password supplied", "does not exist")):
            raise UsageError(f"PostgreSQL refuses DATABASE_URL: {text}; check user, password and database.") from None
        raise UnreachableError(
            f"PostgreSQL at {_where(url)} (DATABASE_URL) cannot be reached ({text}); is the stack up? (./meteo up)"
        ) from None


def libpq_environment(url: str) -> dict[str, str]:
    """Return the variables by which psql, and whatever else uses libpq, connects as this URL says."""
    irregular = {"dbname": "DATABASE", "application_name": "APPNAME"}
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        raise UsageError(_NO_URL) from None
    return {f"PG{irregular.get(key, key.upper())}": value for key, value in parts.items()}


@contextmanager
def transaction(connection: Connection) -> Iterator[psycopg2.extensions.cursor]:
    """Commit on success, roll back on any exception.

    A lost server becomes UnreachableError, a statement that the server refuses TerminalError with its remedy.
    """
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        if (getattr(error, "pgcode", None) or "").startswith("54"):  # a limit of the server's: the data's fault
            raise
        raise UnreachableError(f"PostgreSQL broke off: {_first_line(error)}.") from error
    except psycopg2.ProgrammingError as error:
        raise TerminalError(f"PostgreSQL refuses: {_first_line(error)}; {_remedy(error)}.") from error


def migrate(connection: Connection) -> list[str]:
    """Bring the schema to this version's state and return the names of the migrations applied now.

    Raises TerminalError when the schema is newer than this version knows.
    """
    applied = []
    with transaction(connection) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number INT PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        cursor.execute("SELECT coalesce(max(number), 0) FROM migrations")
        (present,) = cursor.fetchone() or (0,)
        known = _migrations()
        if present > len(known):
            raise TerminalError(
                f"The database's schema has version {present}, this program knows {len(known)}: deploy the newer one."
            )
        for number, (name, sql) in enumerate(known[present:], start=present + 1):
            cursor.execute(sql)
            cursor.execute("INSERT INTO migrations (number, name) VALUES (%s, %s)", (number, name))
            applied.append(name)
    return applied


def open_database(settings: Settings, service: str) -> Connection:
    """Return a connection to a database whose schema is up to date."""
    connection = connect(settings, service)
    try:
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("meteo_common") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(file.name.removesuffix(".sql"), file.read_text("utf-8")) for file in files]


def _remedy(error: psycopg2.ProgrammingError) -> str:
    if isinstance(error, errors.InsufficientPrivilege):
        return "check the rights of DATABASE_URL's user"
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn)):
        return "the schema is missing or was changed by hand: restore the database, or give DATABASE_URL an empty one"
    return "this is a fault of meteo's, please report it"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("connection to server ").strip()


def _where(url: str) -> str:
    parts = parse_dsn(url)
    return f"{parts.get('host', 'the local socket')}:{parts.get('port', 5432)}"
