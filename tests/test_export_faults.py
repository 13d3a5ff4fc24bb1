"""Each operation of an export on HDFS and each of its statements fails once; the next export makes it good."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import tiers
from between import FAULTS, HdfsProxy, Plan, PostgresProxy, hdfs_proxy
from exporting import Command, Work, merge, run_apart, told
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from conftest import Tenant, TenantMaker
from meteo_common.errors import TransientError
from meteo_hadoop.export import export_once
from meteo_hadoop.rebuild import rebuild

# Started once, with everything imported: a process that is to be killed comes in 30 ms instead of 1 s.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["exporting", "meteo_hadoop.rebuild"])


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


def kill_at(tenant: Tenant, plan: Plan, matches: Callable[[str], bool], command: Command) -> None:
    """Run a command in a process of its own, and kill (-9) it when it comes to this step."""
    process = PROCESSES.Process(target=run_apart, args=(command, tenant.settings.model_dump()))
    started = threading.Event()

    def kill() -> None:
        started.wait(60)
        process.kill()

    plan.expect(matches, "kill", kill)
    process.start()
    started.set()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


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


def test_a_merge_whose_concat_fails_is_made_good(work: Work, hdfs: HdfsProxy, fault: str) -> None:
    tenant = through(work.tenant, hdfs)
    fail_once(work, tenant, hdfs.plan, fault, lambda step: step.startswith("CONCAT "), merge)
    work.assert_whole()
    files = {(day, file) for day, file, _ in tiers.read_lines(work.tenant)}
    assert len(files) == len({day for day, _ in files})


def test_a_rebuild_whose_delete_fails_is_made_good(work: Work, hdfs: HdfsProxy, fault: str) -> None:
    tenant = through(work.tenant, hdfs)
    fail_once(work, tenant, hdfs.plan, fault, lambda step: match(step, "DELETE", "weather_"), rebuild)
    work.assert_whole()


@pytest.mark.parametrize("fault", FAULTS, scope="module")
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


def fail_once(
    work: Work, tenant: Tenant, plan: Plan, fault: str, matches: Callable[[str], bool], command: Command = export_once
) -> None:
    """Run a command with this fault, then without it."""
    work.give()
    if command is not export_once:
        assert told(work.tenant) is None
    if fault == "kill":
        kill_at(tenant, plan, matches, command)
    else:
        plan.expect(matches, fault)
        error = told(tenant, command)
        assert error is None or isinstance(error, TransientError), error
    assert plan.happened, plan.seen
    assert told(work.tenant, command) is None
