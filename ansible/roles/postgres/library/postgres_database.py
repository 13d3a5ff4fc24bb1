#!/usr/bin/python
"""The role of the platform and the database that it owns."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.postgresql import as_superuser, connect, holds, role_exists, run

DOCUMENTATION = """
module: postgres_database
short_description: A login role and a database that it owns
description: Sets the role's password only when the role cannot log in with it.
options: {}
"""


def stands(params: dict[str, Any]) -> bool:
    return holds(params, params["database"])


def converge(params: dict[str, Any]) -> None:
    from psycopg2 import sql

    connection = as_superuser(params, "postgres")
    connection.autocommit = True
    role, database = sql.Identifier(params["role"]), sql.Identifier(params["database"])
    with connection, connection.cursor() as cursor:
        verb = sql.SQL("ALTER" if role_exists(cursor, params["role"]) else "CREATE")
        cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD %s").format(verb, role), [params["role_password"]])
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [params["database"]])
        exists = cursor.fetchone()
    with connection.cursor() as cursor:
        if not exists:
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
    connection.close()
    connect(params, params["role"], params["role_password"], params["database"]).close()


if __name__ == "__main__":
    run({"database": {"type": "str", "required": True}}, stands, converge, "role and database")
