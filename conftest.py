"""The session-wide stack of real servers, and a tenant of it for each test that wants clean tables and paths."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from unittest.mock import patch

import psycopg2
import pytest
import yaml
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from pydantic import SecretStr

from meteo_common.settings import Settings, load_settings, stack_directory

STACKS = {"test": 3000, "test-2": 600}
"""Names and port offsets: no port of theirs meets one of a running demo, nor of the other stacks that tests make."""
OTHER_STACKS = ("faults", "watched", "deploy", "deploy-restored", "interfaces")
METEO = Path(sys.executable).parent / "meteo"
PARTITIONS = 3

pytest_plugins = ["servers", "watched", "figures"]

SERVERS = ("stack", "servers", "watched")
"""The fixtures that put servers up for the whole session; no test uses two of them."""

HALVES = 2
"""The tests of `stack` take as long as all others together: two processes share them, each with a stack."""


@dataclass(frozen=True)
class Tenant:
    """A database, topic, HDFS directory and HBase table of its own on the session's servers."""

    settings: Settings

    @property
    def environment(self) -> dict[str, str]:
        """What makes `meteo` speak to this tenant."""
        settings = self.settings
        return {
            **os.environ,
            "BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "TOPIC_NAME": settings.topic_name,
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "HDFS_URL": settings.hdfs_url,
            "HDFS_BASE_PATH": settings.hdfs_base_path,
            "HBASE_ENABLED": str(settings.hbase_enabled).lower(),
            "HBASE_TABLE": settings.hbase_table,
            "METEO_STATE_DIR": str(settings.meteo_state_dir),
        }

    def meteo(
        self, *arguments: str, code: int | None = 0, timeout: float = 300, extra: Mapping[str, str] | None = None
    ) -> str:
        """Run the command line and return what it printed; fails unless it exits with `code` (None: any)."""
        ran = subprocess.run(
            [METEO, *arguments],
            env={**self.environment, **(extra or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or ran.returncode == code, f"meteo {' '.join(arguments)}: {ran.returncode}\n{ran.stdout}"
        return ran.stdout

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Return the rows of a statement."""
        connection = psycopg2.connect(self.settings.database_url.get_secret_value())
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def pytest_configure() -> None:
    """Hear interrupts: what a shell starts in the background ignores them, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the stack, so that `-m "not stack"` leaves it down, and put it last: the others take seconds.

    Tests of the same servers are a group, which pytest-xdist runs in one process: a stack is put up once.
    """
    modules = sorted({item.path for item in items if servers_of(item) == "stack"})
    half = {module: f"stack-{number % HALVES}" for number, module in enumerate(modules)}
    for item in items:
        servers = servers_of(item)
        if servers == "stack":
            item.add_marker("stack")
        # The containers' take as long as the others of the deployment together.
        group = half[item.path] if servers == "stack" else servers or _deployed(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    # Those of one fixture stand together: its servers end with the last of them.
    items.sort(key=lambda item: (bool(_deployed(item)), servers_of(item) or ""))


def servers_of(item: pytest.Item) -> str | None:
    """Return the fixture that puts up the servers of this test; None for the deployment's, which have their own."""
    found = [name for name in SERVERS if name in getattr(item, "fixturenames", ())]
    if "deployment" in item.keywords and "watched" not in found:
        return None
    assert len(found) < 2, f"{item.nodeid} needs {found}"
    return found[0] if found else None


def _deployed(item: pytest.Item) -> str | None:
    if "deployment" not in item.keywords or servers_of(item):
        return None
    return "containers" if "containers" in item.keywords else "deployment"


LASTING = ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End servers with the last test that needs them: idle ones would take a third of a core from all others."""
    if nextitem is not None and servers_of(item) != servers_of(nextitem):
        LASTING.close()


@pytest.fixture(scope="session")
def lasting() -> Iterator[ExitStack]:
    """What ends when the tests that need it are over."""
    with LASTING:
        yield LASTING


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Take down what a run that was interrupted left: its processes could end no fixture."""
    worker, keep = hasattr(session.config, "workerinput"), os.environ.get("METEO_KEEP_TEST_STACK") == "1"
    if worker or keep or exitstatus != pytest.ExitCode.INTERRUPTED:
        return
    for name in (*STACKS, *OTHER_STACKS):
        if stack_directory(name).exists():
            _meteo("--stack", name, "down", "--purge", check=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was tested, and on what: beside the result, where it is looked for."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-list", "--count", "HEAD"]
    history = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "no"
    kinds = Path("/proc/filesystems")
    overlay = kinds.exists() and "overlay" in kinds.read_text("utf-8")
    where = f"{os.cpu_count()} processors, {platform.platform()}, user {os.geteuid()}, overlayfs {overlay}"
    terminalreporter.write_line(f"machine: {where}; {history} commits of history")
    told = [each for every in terminalreporter.stats.values() for each in every]
    reports = [report for report in told if isinstance(report, pytest.TestReport)]
    deployed = [report for report in reports if "deployment" in report.keywords]
    for runtime in ("processes", "containers"):
        own = [report for report in deployed if ("containers" in report.keywords) == (runtime == "containers")]
        tests, seconds = len({report.nodeid for report in own}), sum(report.duration for report in own)
        if own:
            terminalreporter.write_line(f"deployed as {runtime}: {tests} tests in {seconds:.0f} s")


@pytest.fixture(scope="session")
def stack(lasting: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack's state directory."""
    return lasting.enter_context(_stack(tmp_path_factory))


@contextmanager
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the stack anew; it is gone afterwards.

    METEO_KEEP_TEST_STACK=1 leaves it up and takes it over as it is, which saves two minutes a run while writing tests.
    """
    slot, name = _free_stack(tmp_path_factory.getbasetemp())
    keep = os.environ.get("METEO_KEEP_TEST_STACK") == "1"
    # Put back afterwards: commands of the tests that come then would ask for a stack that is no longer there.
    with patch.dict(os.environ, {"METEO_STACK": name, "METEO_PORT_OFFSET": str(STACKS[name])}):
        for setting in Settings.model_fields:
            os.environ.pop(setting.upper(), None)
        if not keep:
            _meteo("down", "--purge", check=False)
        try:
            if not (keep and _is_up()):
                _meteo("up", "-e", "services_enabled=false", "-e", "monitoring_enabled=false")
            yield stack_directory(name)
        finally:
            if not keep:
                _meteo("down", "--purge")
            slot.close()


def _free_stack(directory: Path) -> tuple[IO[str], str]:
    """Return the name of a stack that no other process of this run has taken, and the file whose lock holds it."""
    for name in STACKS:
        file = (directory.parent / f"{name}.lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            return file, name
    raise AssertionError(f"all of {', '.join(STACKS)} are taken")


def _is_up() -> bool:
    try:
        psycopg2.connect(load_settings().database_url.get_secret_value()).close()
    except psycopg2.OperationalError:
        return False
    return True


def _meteo(*arguments: str, check: bool = True) -> None:
    ran = subprocess.run([METEO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert not check or ran.returncode == 0, f"meteo {' '.join(arguments)}\n{ran.stdout}"


@pytest.fixture(scope="session")
def settings(stack: Path) -> Settings:
    """The settings of the session's stack."""
    assert stack.is_dir()
    return load_settings()


@pytest.fixture(scope="session")
def make_tenant(stack: Path, settings: Settings) -> TenantMaker:
    """A maker of tenants; they go with the stack."""
    return TenantMaker(stack, settings)


@pytest.fixture
def tenant(make_tenant: TenantMaker) -> Tenant:
    """A tenant for this test alone."""
    return make_tenant()


class TenantMaker:
    """Makes tenants on the session's stack."""

    def __init__(self, stack: Path, settings: Settings) -> None:
        self._stack = stack
        self._settings = settings
        secrets = yaml.safe_load((stack / "secrets.yml").read_text("utf-8"))
        self._superuser = secrets["postgres_superuser_password"]

    def __call__(self) -> Tenant:
        name = f"t{uuid.uuid4().hex[:10]}"
        self.as_superuser(f"CREATE DATABASE {name} OWNER meteo")
        admin = KafkaAdminClient(bootstrap_servers=self._settings.bootstrap_servers.split(","))
        admin.create_topics([NewTopic(name, PARTITIONS, 1)])
        admin.close()
        url = self._settings.database_url.get_secret_value().rpartition("/")[0]
        return Tenant(
            self._settings.model_copy(
                update={
                    "topic_name": name,
                    "database_url": SecretStr(f"{url}/{name}"),
                    "hdfs_base_path": f"/user/hdfs/{name}",
                    "hbase_table": name,
                    "meteo_state_dir": self._state_directory(name),
                }
            )
        )

    def _state_directory(self, name: str) -> Path:
        """Return a directory that the services' user may write, whoever runs the tests."""
        directory = self._stack / "data" / "producers" / name
        for path in (directory.parent, directory):
            path.mkdir(exist_ok=True)
            shutil.chown(path, self._stack.stat().st_uid, self._stack.stat().st_gid)
        return directory

    def as_superuser(self, statement: str) -> None:
        """Run a statement as PostgreSQL's superuser."""
        host = self._settings.database_url.get_secret_value().rpartition("@")[2].partition("/")[0]
        connection = psycopg2.connect(f"postgresql://postgres:{self._superuser}@{host}/postgres")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()
