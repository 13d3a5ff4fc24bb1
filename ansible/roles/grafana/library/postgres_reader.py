#!/usr/bin/python
"""A role that may read every table of a database, also those that are made later, and change nothing."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: postgres_reader
short_description: A login role that may SELECT from the tables of a database
description: Changes something only when the role cannot log in with its password, or lacks a privilege.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "superuser_password": {"type": "str", "required": True, "no_log": True},
    "owner": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "role": {"type": "str", "required": True},
    "role_password": {"type": "str", "required": True, "no_log": True},
}
# Tables that it may not read yet, and 1 while those that the owner makes later would not be readable.
LACKING = """
SELECT (SELECT count(*) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
          AND NOT has_table_privilege(current_user, oid, 'SELECT'))
     + CASE WHEN EXISTS (
           SELECT 1 FROM pg_default_acl, aclexplode(defaclacl) AS granted
           WHERE defaclnamespace = 'public'::regnamespace AND defaclobjtype = 'r' AND granted.privilege_type = 'SELECT'
             AND granted.grantee = current_user::regrole
       ) THEN 0 ELSE 1 END
"""
# Ten connections and half a minute: a dashboard that asks too much must not take the services' places or time.
GRANTS = """
ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10 PASSWORD {password};
ALTER ROLE {role} SET default_transaction_read_only = on;
ALTER ROLE {role} SET statement_timeout = '30s';
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {role};
"""


def connect(params: dict[str, Any], user: str, password: str) -> Any:
    import psycopg2

    return psycopg2.connect(
        host=params["host"],
        port=params["port"],
        user=user,
        password=password,
        dbname=params["database"],
        connect_timeout=10,
    )


def reads_all(params: dict[str, Any]) -> bool:
    import psycopg2

    try:
        connection = connect(params, params["role"], params["role_password"])
    except psycopg2.OperationalError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute(LACKING)
            return not cursor.fetchone()[0]
    finally:
        connection.close()


def converge(params: dict[str, Any]) -> bool:
    from psycopg2 import sql

    if reads_all(params):
        return False
    connection = connect(params, "postgres", params["superuser_password"])
    names = {name: sql.Identifier(params[name]) for name in ("role", "owner", "database")}
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [params["role"]])
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE ROLE {role}").format(**names))
            cursor.execute(sql.SQL(GRANTS).format(**names, password=sql.Literal(params["role_password"])))
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
            msg=f"PostgreSQL refused to set up the dashboards' role: {str(error).strip()}. "
            "The passwords in the stack's secrets file must be those that its data was made with."
        )


if __name__ == "__main__":
    main()
