#!/usr/bin/python
"""A database that is filled beside the present one, and then takes its name."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.postgresql import as_superuser

DOCUMENTATION = """
module: postgres_restored
short_description: A database to restore into
description: Makes it anew and empty, or puts it in the place of the platform's database, whose connections end.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "superuser_password": {"type": "str", "required": True, "no_log": True},
    "owner": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "beside": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["empty", "in_place"], "required": True},
}
STATEMENTS = {
    "empty": ("DROP DATABASE IF EXISTS {beside} WITH (FORCE)", "CREATE DATABASE {beside} OWNER {owner}"),
    "in_place": ("DROP DATABASE IF EXISTS {database} WITH (FORCE)", "ALTER DATABASE {beside} RENAME TO {database}"),
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    params = module.params
    import psycopg2
    from psycopg2 import sql

    names = {name: sql.Identifier(params[name]) for name in ("owner", "database", "beside")}
    try:
        connection = as_superuser(params, "postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in STATEMENTS[params["state"]]:
                cursor.execute(sql.SQL(statement).format(**names))
        connection.close()
    except psycopg2.Error as error:
        module.fail_json(msg=f"PostgreSQL refused: {str(error).strip()}")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
