#!/usr/bin/python
"""A role that may read the server's statistics, and nothing else."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.postgresql import as_superuser, holds, role_exists, run

DOCUMENTATION = """
module: postgres_monitor
short_description: A login role that is a member of pg_monitor
description: Sets the role's password only when the role cannot log in with it.
options: {}
"""

IS_MONITOR = "SELECT pg_has_role(current_user, 'pg_monitor', 'USAGE')"


def stands(params: dict[str, Any]) -> bool:
    return holds(params, "postgres", IS_MONITOR)


def converge(params: dict[str, Any]) -> None:
    from psycopg2 import sql

    connection = as_superuser(params, "postgres")
    role = sql.Identifier(params["role"])
    try:
        with connection, connection.cursor() as cursor:
            verb = sql.SQL("ALTER" if role_exists(cursor, params["role"]) else "CREATE")
            # Five connections: a scrape needs two, and an exporter that hangs must not take the services' places.
            cursor.execute(
                sql.SQL("{} ROLE {} LOGIN CONNECTION LIMIT 5 PASSWORD %s").format(verb, role), [params["role_password"]]
            )
            cursor.execute(sql.SQL("GRANT pg_monitor TO {}").format(role))
    finally:
        connection.close()


if __name__ == "__main__":
    run({}, stands, converge, "the exporter's role")
