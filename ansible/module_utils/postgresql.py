"""What the modules that set up roles in PostgreSQL share: how they ask it, and what they say when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Of every such module: the server, and the role that shall be able to log in.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "superuser_password": {"type": "str", "required": True, "no_log": True},
    "role": {"type": "str", "required": True},
    "role_password": {"type": "str", "required": True, "no_log": True},
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


def as_superuser(params: dict[str, Any], database: str) -> Any:
    return connect(params, "postgres", params["superuser_password"], database)


def holds(params: dict[str, Any], database: str, condition: str = "SELECT true") -> bool:
    """Whether the role can log in with its password, and the condition is true for it."""
    import psycopg2

    try:
        connection = connect(params, params["role"], params["role_password"], database)
    except psycopg2.OperationalError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute(condition)
            return bool(cursor.fetchone()[0])
    finally:
        connection.close()


def role_exists(cursor: Any, role: str) -> bool:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
    return cursor.fetchone() is not None


def run(
    arguments: dict[str, dict[str, Any]],
    stands: Callable[[dict[str, Any]], bool],
    converge: Callable[[dict[str, Any]], None],
    what: str,
) -> None:
    """Be the module: `converge` makes what `stands` does not find, `what` names it."""
    module = AnsibleModule(argument_spec={**ARGUMENTS, **arguments}, supports_check_mode=True)
    import psycopg2

    try:
        found = stands(module.params)
        if not found and not module.check_mode:
            converge(module.params)
        module.exit_json(changed=not found)
    except psycopg2.Error as error:
        module.fail_json(
            msg=f"PostgreSQL refused to set up {what}: {str(error).strip()}. "
            "The passwords in the stack's secrets file must be those that its data was made with."
        )
