#!/usr/bin/python
"""The role of the platform and the database that it owns."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: postgres_database
short_description: A login role and a database that it owns
description: Sets the role's password only when the role cannot log in with it.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "superuser_password": {"type": "str", "required": True, "no_log": True},
    "role": {"type": "str", "required": True},
    "role_password": {"type": "str", "required": True, "no_log": True},
    "database": {"type": "str", "required": True},
}


def connect(params: dict[str, Any], user: str, password: str, database: str) -> Any:
    import psycopg2

    return psycopg2.connect(
        host=params["host"],
        port=params["port"],
        user=user,
        password=password,
        dbname=database,
        connect_timeout=10,
    )


def converge(params: dict[str, Any]) -> bool:
    import psycopg2
    from psycopg2 import sql

    try:
        connect(params, params["role"], params["role_password"], params["database"]).close()
        return False
    except psycopg2.OperationalError:
        pass
    connection = connect(params, "postgres", params["superuser_password"], "postgres")
    connection.autocommit = True
    role, database = sql.Identifier(params["role"]), sql.Identifier(params["database"])
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [params["role"]])
        verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
        cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD %s").format(verb, role), [params["role_password"]])
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [params["database"]])
        exists = cursor.fetchone()
    with connection.cursor() as cursor:
        if not exists:
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
    connection.close()
    connect(params, params["role"], params["role_password"], params["database"]).close()
    return True


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    import psycopg2

    try:
        module.exit_json(changed=converge(module.params))
    except psycopg2.Error as error:
        module.fail_json(
            msg=f"PostgreSQL refused to set up role and database: {str(error).strip()}. "
            "The passwords in the stack's secrets file must be those that its data was made with."
        )


if __name__ == "__main__":
    main()
