"""Kafka, PostgreSQL and HDFS of a stack of their own: the servers that tests may stop, starve and fill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psycopg2
import pytest
from campaign import Group

from conftest import Tenant, TenantMaker
from meteo_common.database import open_database
from meteo_common.settings import Settings, load_settings, project_root, stack_directory

STACK = "faults"
# No port of it may meet one of the other stacks' that tests run; deployment/test_description.py proves it.
PORT_OFFSET = 2400
PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class Servers:
    """The stack's directory and settings, and a maker of tenants on it."""

    directory: Path
    settings: Settings
    tenant: TenantMaker

    def stop(self, server: str) -> None:
        """Stop a server as an operator does, and wait for its end."""
        self._supervisorctl("stop", server)

    def start(self, server: str) -> None:
        """Start a server; it may not answer yet."""
        self._supervisorctl("start", server)

    def kill(self, server: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a server a signal that ends it; the supervisor starts it again."""
        os.kill(self.pid(server), number)

    @contextmanager
    def without(self, server: str) -> Iterator[None]:
        """Stop a server, and have it back afterwards whatever happens."""
        self.stop(server)
        try:
            yield
        finally:
            self.start(server)

    @contextmanager
    def small_disk(self, tenant: Tenant, megabytes: int) -> Iterator[Path]:
        """Let what the tenant's database makes from here on lie on a disk of this size; the database goes with it."""
        disk, name = self.directory / "data" / "small", tenant.settings.topic_name
        disk.mkdir(exist_ok=True)
        self._mount(disk, megabytes)
        try:
            self.tenant.as_superuser(f"CREATE TABLESPACE {name} OWNER meteo LOCATION '{disk}'")
            self.tenant.as_superuser(f"ALTER DATABASE {name} SET default_tablespace = {name}")
            yield disk
        finally:
            self.tenant.as_superuser(f"DROP DATABASE {name} WITH (FORCE)")
            self.tenant.as_superuser(f"DROP TABLESPACE IF EXISTS {name}")
            self._umount(disk)

    @contextmanager
    def small_datanode(self, megabytes: int) -> Iterator[None]:
        """Give the DataNode an empty disk of this size instead of its own, which it has back afterwards."""
        disk = self.directory / "data" / "datanode" / "blocks"
        self.stop("datanode")
        self._mount(disk, megabytes)
        try:
            self.start("datanode")
            yield
        finally:
            self.stop("datanode")
            self._umount(disk)
            self.start("datanode")

    def _mount(self, disk: Path, megabytes: int) -> None:
        owner = self.directory.stat()
        options = f"size={megabytes}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
        subprocess.run([*as_root(), "mount", "-t", "tmpfs", "-o", options, "meteo-test", disk], check=True)

    def _umount(self, disk: Path) -> None:
        subprocess.run([*as_root(), "umount", disk], check=True)

    def pid(self, server: str) -> int:
        """Return the process id of a server that runs."""
        return int(self._supervisorctl("pid", server))

    def _supervisorctl(self, *arguments: str) -> str:
        command = [PROGRAMS / "supervisorctl", "-c", self.directory / "run" / "supervisor.conf", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def as_root() -> list[str]:
    """Return what makes a command root's."""
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo") or subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.fail("This test mounts a small tmpfs: run it as root, or as one who may use sudo without a password.")
    return ["sudo", "-n"]


@pytest.fixture
def group(servers: Servers, tmp_path: Path) -> Iterator[Group]:
    """Consumers of a tenant of these servers; none is left behind."""
    group = Group(servers.tenant(), tmp_path)
    open_database(group.tenant.settings, "test").close()
    yield group
    group.kill()


@pytest.fixture(scope="session")
def servers(lasting: ExitStack) -> Servers:
    """The servers, which a test may stop."""
    return lasting.enter_context(_servers())


@contextmanager
def _servers() -> Iterator[Servers]:
    """Make them anew; they are gone afterwards, unless METEO_KEEP_TEST_STACK=1 keeps them as they are."""
    keep = os.environ.get("METEO_KEEP_TEST_STACK") == "1"
    with patch.dict(os.environ, {"METEO_STACK": STACK, "METEO_PORT_OFFSET": str(PORT_OFFSET)}):
        for name in Settings.model_fields:
            os.environ.pop(name.upper(), None)
        if not keep:
            _playbook("down.yml", purge=True)
        if not (keep and _is_up()):
            # A DataNode that has gone counts as dead after 15 s instead of 10 min.
            plain = {"services_enabled": False, "monitoring_enabled": False}
            hasty = {"hadoop_heartbeat_check_ms": 2500}
            _playbook("site.yml", port_offset=PORT_OFFSET, **plain, **hasty)
        settings, directory = load_settings(), stack_directory()
    try:
        yield Servers(directory, settings, TenantMaker(directory, settings))
    finally:
        if not keep:
            _playbook("down.yml", purge=True)


def _is_up() -> bool:
    try:
        psycopg2.connect(load_settings().database_url.get_secret_value()).close()
    except psycopg2.OperationalError:
        return False
    return True


def _playbook(name: str, **variables: object) -> None:
    ansible, inventory = project_root() / "ansible", Path(__file__).with_name("ingestion.ini")
    environment: Mapping[str, str] = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ansible / "ansible.cfg"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{PROGRAMS}:{os.environ.get('PATH', '')}",
    }
    command = ["-i", str(inventory), str(ansible / name), "-e", json.dumps({"stack_name": STACK, **variables})]
    ran = subprocess.run(
        [PROGRAMS / "ansible-playbook", *command],
        cwd=ansible,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
