"""What PostgreSQL refuses is one sentence that says whose fault it is."""

from __future__ import annotations

from contextlib import closing

import pytest

from conftest import Tenant
from meteo_common.database import open_database, transaction
from meteo_common.errors import TerminalError

REFUSED = [
    ("SELECT * FROM pg_authid", "permission denied", "check the rights of DATABASE_URL's user."),
    ("SELECT * FROM nowhere", 'relation "nowhere" does not exist', "the schema is missing or was changed by hand:"),
    ("SELECT nothing FROM weather", 'column "nothing" does not exist', "the schema is missing or was changed by hand:"),
    ("SELEKT 1", "syntax error", "this is a fault of meteo's, please report it."),
]


@pytest.mark.parametrize(("statement", "reason", "remedy"), REFUSED, ids=[reason for _, reason, _ in REFUSED])
def test_a_statement_that_is_refused_says_what_helps(tenant: Tenant, statement: str, reason: str, remedy: str) -> None:
    with closing(open_database(tenant.settings, "test")) as database:
        with pytest.raises(TerminalError) as told, transaction(database) as cursor:
            cursor.execute(statement)
        with transaction(database) as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
    assert str(told.value).startswith("PostgreSQL refuses: ")
    assert reason in str(told.value)
    assert remedy in str(told.value)
