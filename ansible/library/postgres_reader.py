#!/usr/bin/python
"""A role that may read every table of a database, also those that are made later, and change nothing."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.postgresql import as_superuser, holds, role_exists, run

DOCUMENTATION = """
module: postgres_reader
short_description: A login role that may SELECT from the tables of a database
description: Changes something only when the role cannot log in with its password, or lacks a privilege.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "owner": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
}
# There is no table that it may not read, and those that the owner makes later will be readable.
READS_ALL = """
SELECT NOT EXISTS (
    SELECT 1 FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
      AND NOT has_table_privilege(current_user, oid, 'SELECT')
) AND EXISTS (
    SELECT 1 FROM pg_default_acl, aclexplode(defaclacl) AS granted
    WHERE defaclnamespace = 'public'::regnamespace AND defaclobjtype = 'r' AND granted.privilege_type = 'SELECT'
      AND granted.grantee = current_user::regrole
)
"""
# Ten connections and half a minute: a page that asks too much must not take the services' places or time.
GRANTS = """
ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10 PASSWORD {password};
ALTER ROLE {role} SET default_transaction_read_only = on;
ALTER ROLE {role} SET statement_timeout = '30s';
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {role};
"""


def stands(params: dict[str, Any]) -> bool:
    return holds(params, params["database"], READS_ALL)


def converge(params: dict[str, Any]) -> None:
    from psycopg2 import sql

    connection = as_superuser(params, params["database"])
    names = {name: sql.Identifier(params[name]) for name in ("role", "owner", "database")}
    try:
        with connection, connection.cursor() as cursor:
            if not role_exists(cursor, params["role"]):
                cursor.execute(sql.SQL("CREATE ROLE {role}").format(**names))
            cursor.execute(sql.SQL(GRANTS).format(**names, password=sql.Literal(params["role_password"])))
    finally:
        connection.close()


if __name__ == "__main__":
    run(ARGUMENTS, stands, converge, "a role that reads")
