"""Each operation of an export on HDFS and each of its statements fails once; the next export makes it good."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import tiers
from between import FAULTS, HdfsProxy, Plan, PostgresProxy, hdfs_proxy
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from conftest import Tenant, TenantMaker
from meteo_common.database import open_database
from meteo_common.errors import MeteoError, TransientError
from meteo_hadoop.export import export_once
from meteo_hadoop.reconcile import reconcile_tiers

ROWS = 12
"""A slice: 2 partitions, 6 rows each, over the night in which Paris loses an hour."""


class Work:
    """A tenant with rows to export, written straight into the tables: Kafka and the consumer are not under test."""

    MONTH = "CREATE TABLE weather_2013_03 PARTITION OF weather FOR VALUES FROM ('2013-03-01Z') TO ('2013-04-01Z')"
    TOPIC = "INSERT INTO topics (generation, topic_id, name) VALUES (1, gen_random_uuid(), %s) ON CONFLICT DO NOTHING"
    MOVE = """
        INSERT INTO positions (topic_id, partition, first_offset, next_offset)
        SELECT topic_id, p, 0, 0 FROM topics, generate_series(0, 1) AS p ON CONFLICT DO NOTHING;
        UPDATE positions SET next_offset = next_offset + 6
    """
    ROWS = """
        INSERT INTO weather (date_time, msg_offset, partition, topic_generation, value)
        SELECT at, next_offset + n, partition, 1, jsonb_build_object('station_id', 'replay:JFK', 'observed_at', at,
            'n', next_offset + n)
        FROM positions, generate_series(0, 5) AS n,
            LATERAL (SELECT '2013-03-30T20:30:00Z'::timestamptz + n * interval '1 hour') AS t (at)
    """

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.rows = 0
        with closing(open_database(tenant.settings, "test")) as database, database, database.cursor() as cursor:
            cursor.execute(self.MONTH)
            cursor.execute(self.TOPIC, (tenant.settings.topic_name,))

    def give(self) -> None:
        """Add a slice to export."""
        self.tenant.query(self.ROWS if self.rows else self.MOVE.partition(";")[0])
        if not self.rows:
            self.tenant.query(self.ROWS)
        self.tenant.query("UPDATE positions SET next_offset = next_offset + 6")
        self.rows += ROWS

    def assert_whole(self) -> None:
        """Fail unless each row is in exactly one segment, and the books, the manifests and the files agree."""
        found = sorted((row["partition"], row["msg_offset"]) for _, _, row in tiers.read_lines(self.tenant))
        assert found == sorted(self.tenant.query("SELECT partition, msg_offset FROM weather"))
        assert len(found) == len(set(found)) == self.rows
        report = reconcile_tiers(self.tenant.settings, deep=True)
        assert report.mismatches == []
        assert [day.pending for day in report.days] == [["to be aggregated"]] * 2


@pytest.fixture(scope="module", params=FAULTS)
def fault(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def work(make_tenant: TenantMaker, fault: str) -> Work:
    """A tenant for each fault: what has gathered is read again after each step."""
    return Work(make_tenant())


@pytest.fixture(scope="module")
def hdfs(work: Work) -> Iterator[HdfsProxy]:
    with hdfs_proxy(work.tenant.settings.hdfs_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def postgres(work: Work) -> Iterator[PostgresProxy]:
    server = parse_dsn(work.tenant.settings.database_url.get_secret_value())
    with closing(PostgresProxy(server["host"], int(server["port"]))) as proxy:
        yield proxy


def through(tenant: Tenant, hdfs: HdfsProxy | None = None, postgres: PostgresProxy | None = None) -> Tenant:
    """Return the tenant, reached through these proxies."""
    update: dict[str, object] = {}
    if hdfs:
        update["hdfs_url"] = hdfs.url
    if postgres:
        url = tenant.settings.database_url.get_secret_value()
        update["database_url"] = SecretStr(make_dsn(url, port=postgres.port, host="127.0.0.1", sslmode="disable"))
    return replace(tenant, settings=tenant.settings.model_copy(update=update))


def told(tenant: Tenant) -> MeteoError | None:
    """Export, and return what it told instead of ending well."""
    try:
        export_once(tenant.settings)
    except MeteoError as error:
        return error
    return None


def kill_at(tenant: Tenant, plan: Plan, matches: Callable[[str], bool]) -> None:
    """Export, and kill (-9) the export when it comes to this step."""
    started: list[subprocess.Popen[bytes]] = []
    plan.expect(matches, "kill", lambda: started[0].kill())
    settings = tenant.settings
    reached = {"HDFS_URL": settings.hdfs_url, "DATABASE_URL": settings.database_url.get_secret_value()}
    started.append(tiers.start(tenant, "export", extra=reached))
    assert started[0].wait(60) == -signal.SIGKILL


STEPS = [
    ("MKDIRS", "t"),
    ("OPEN", "_manifest"),
    ("READ", "_manifest"),
    ("LISTSTATUS", "dt="),
    *((name, file) for file in ("weather", "_manifest") for name in ("CREATE", "WRITE", "GETFILESTATUS", "RENAME")),
]
"""Operation and part of the name; a step of a day happens once a day, a file's for each file."""


@pytest.mark.parametrize(("operation", "file"), STEPS, ids=[" ".join(step) for step in STEPS])
def test_an_operation_on_hdfs_that_fails_is_made_good(
    work: Work, hdfs: HdfsProxy, fault: str, operation: str, file: str
) -> None:
    fail_once(work, through(work.tenant, hdfs), hdfs.plan, fault, lambda step: match(step, operation, file))
    work.assert_whole()


@pytest.mark.parametrize("fault", ["error", "cut", "lost"], scope="module")
def test_a_statement_that_fails_is_made_good(work: Work, postgres: PostgresProxy, fault: str) -> None:
    tenant = through(work.tenant, postgres=postgres)
    for _ in range(2):  # a day's first export asks more
        work.give()
        postgres.plan.expect(lambda _: False, "")
        assert told(tenant) is None
    steps = [step for step in dict.fromkeys(postgres.plan.seen) if not step.startswith(("BEGIN", "ROLLBACK"))]
    assert any(step.startswith("COPY") for step in steps)
    assert any(step.startswith("COMMIT of INSERT INTO days") for step in steps)
    for step in steps:
        fail_once(work, tenant, postgres.plan, fault, step.__eq__)
    work.assert_whole()


def match(step: str, operation: str, file: str) -> bool:
    """Say whether a step is this operation on such a file."""
    return step.startswith(f"{operation} ") and file in step


def fail_once(work: Work, tenant: Tenant, plan: Plan, fault: str, matches: Callable[[str], bool]) -> None:
    """Export with this fault, then without it."""
    work.give()
    if fault == "kill":
        kill_at(tenant, plan, matches)
    else:
        plan.expect(matches, fault)
        error = told(tenant)
        assert error is None or isinstance(error, TransientError), error
    assert plan.happened, plan.seen
    assert told(work.tenant) is None
