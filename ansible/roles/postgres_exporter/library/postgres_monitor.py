#!/usr/bin/python
"""A role that may read the server's statistics, and nothing else."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: postgres_monitor
short_description: A login role that is a member of pg_monitor
description: Sets the role's password only when the role cannot log in with it.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "superuser_password": {"type": "str", "required": True, "no_log": True},
    "role": {"type": "str", "required": True},
    "role_password": {"type": "str", "required": True, "no_log": True},
}
IS_MONITOR = "SELECT pg_has_role(current_user, 'pg_monitor', 'USAGE')"


def connect(params: dict[str, Any], user: str, password: str) -> Any:
    import psycopg2

    return psycopg2.connect(
        host=params["host"],
        port=params["port"],
        user=user,
        password=password,
        dbname="postgres",
        connect_timeout=10,
    )


def is_monitor(params: dict[str, Any]) -> bool:
    import psycopg2

    try:
        connection = connect(params, params["role"], params["role_password"])
    except psycopg2.OperationalError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute(IS_MONITOR)
            return bool(cursor.fetchone()[0])
    finally:
        connection.close()


def converge(params: dict[str, Any]) -> bool:
    from psycopg2 import sql

    if is_monitor(params):
        return False
    connection = connect(params, "postgres", params["superuser_password"])
    role = sql.Identifier(params["role"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [params["role"]])
            verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
            # Five connections: a scrape needs two, and an exporter that hangs must not take the services' places.
            cursor.execute(
                sql.SQL("{} ROLE {} LOGIN CONNECTION LIMIT 5 PASSWORD %s").format(verb, role), [params["role_password"]]
            )
            cursor.execute(sql.SQL("GRANT pg_monitor TO {}").format(role))
    finally:
        connection.close()
    return True


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    import psycopg2

    try:
        module.exit_json(changed=converge(module.params))
    except psycopg2.Error as error:
        module.fail_json(
            msg=f"PostgreSQL refused to set up the exporter's role: {str(error).strip()}. "
            "The passwords in the stack's secrets file must be those that its data was made with."
        )


if __name__ == "__main__":
    main()
