"""A stack of containers, without Docker: what it is told to run, and that no secret is in its command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from meteo_cli import containers, stack
from meteo_cli.execute import in_container
from meteo_cli.tools import TOOLS
from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import Settings

CLIENT = {
    "program": "docker",
    "image": "meteo/hadoop:1",
    "network": "dock-infra-kafka",
    "user": "10001:10001",
    "producer_volume": "dock-producer",
}
SERVICES: dict[str, dict[str, Any]] = {
    "kafka": {"container": "dock-kafka", "ports": {"host": 9092}, "health": {"host": "kafka.invalid", "tcp": 9092}},
    "postgres": {"container": "dock-postgres"},
}
SETTINGS = """DATABASE_URL=postgresql://meteo:geheim@postgres:5432/weatherdb
BOOTSTRAP_SERVERS=kafka:29092
HDFS_USER=hdfs
JAVA_HOME=/opt/meteo/java
POSTGRES_BIN=/usr/lib/postgresql/15/bin
KAFKA_CLASSPATH_JARS=/opt/meteo/kafka/lib
HADOOP_CONF_DIR=/of/another/container
HADOOP_CLASSPATH_JARS=/opt/meteo/hadoop/lib
"""


@pytest.fixture(autouse=True)
def dock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a stack of containers, which is the chosen one."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.startswith(("PG", "METEO_", "HADOOP_")):
            monkeypatch.delenv(name)
    for name, value in {"METEO_HOME": str(tmp_path), "METEO_PROJECT": str(tmp_path), "METEO_STACK": "dock"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAVA_HOME", "/of/the/host")
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "stacks" / "dock"
    directory.mkdir(parents=True)
    (directory / "settings.env").write_text(SETTINGS)
    write(directory, client=CLIENT, services=SERVICES)
    return directory


def write(directory: Path, **facts: Any) -> None:
    head = {"name": "dock", "port_offset": 600, "secrets_file": "secrets.yml"}
    (directory / "stack.json").write_text(json.dumps(head | facts))


def entered(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return what a command of the host becomes."""
    became: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda _, argv, environment: became.extend((argv, environment)))
    containers.enter(command, [command, *arguments])
    argv, environment = became
    return argv, environment


def options(argv: list[str], name: str) -> set[str]:
    return {argv[place + 1] for place, word in enumerate(argv) if word == name}


def test_both_forms_of_the_index_are_read(dock: Path) -> None:
    kafka = stack.read_stack().services[0]
    assert (kafka.container, kafka.log, kafka.host) == ("dock-kafka", None, "kafka")
    assert not kafka.healthy(), "a container that is stopped has no address"
    write(dock, services={"kafka": {"log": "/logs/kafka.log"}})
    deployed = stack.read_stack()
    kafka = deployed.services[0]
    assert (kafka.container, kafka.log, kafka.host) == (None, Path("/logs/kafka.log"), "127.0.0.1")
    assert deployed.client is None
    assert containers.client_of_stack() is None


def test_a_command_runs_in_the_network_with_the_users_settings(monkeypatch: pytest.MonkeyPatch, dock: Path) -> None:
    monkeypatch.setenv("OPENWEATHER_API_KEY", "geheim")
    argv, environment = entered(monkeypatch, "produce", "--once")
    assert argv[:2] == ["docker", "run"]
    assert argv[-5:] == ["--entrypoint", "meteo", "meteo/hadoop:1", "produce", "--once"]
    assert "geheim" not in " ".join(argv)
    assert "OPENWEATHER_API_KEY" in options(argv, "--env")
    assert environment["OPENWEATHER_API_KEY"] == "geheim"
    assert "JAVA_HOME" not in options(argv, "--env"), "the host's Java is not in the image"
    assert options(argv, "--network") == {"dock-infra-kafka"}
    volumes = options(argv, "--volume")
    assert f"{dock / 'settings.env'}:{dock / 'settings.env'}:ro" in volumes
    assert options(argv, "--workdir") == {str(Path.cwd())}
    assert not any("docker.sock" in volume for volume in volumes)


def test_what_only_the_owner_may_read_is_handed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("VISUAL_CROSSING_API_KEY=geheim\nCITY=Oslo,NO\n")
    (tmp_path / ".env").chmod(0o600)
    monkeypatch.setenv("CITY", "Bern,CH")
    argv, environment = entered(monkeypatch, "produce")
    assert {"VISUAL_CROSSING_API_KEY", "CITY"} <= options(argv, "--env")
    assert (environment["VISUAL_CROSSING_API_KEY"], environment["CITY"]) == ("geheim", "Bern,CH")
    assert "geheim" not in " ".join(argv)
    (tmp_path / ".env").chmod(0o644)
    argv, _ = entered(monkeypatch, "produce")
    assert "VISUAL_CROSSING_API_KEY" not in options(argv, "--env"), "read inside, where doctor can tell its origin"


def test_a_working_directory_hides_nothing_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("/", "/usr", "/usr/bin", "/etc"):
        monkeypatch.chdir(place)
        argv, _ = entered(monkeypatch, "produce")
        assert options(argv, "--workdir") == {"/mnt"}
        assert f"{place}:/mnt" in options(argv, "--volume")


def test_status_is_told_what_the_host_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "dock-kafka": {"Status": "running", "StartedAt": "2026-01-02T03:04:05.678901234Z"},
        "dock-postgres": {"Status": "exited", "StartedAt": "2026-01-02T03:04:05Z"},
    }
    monkeypatch.setattr(containers, "states", lambda *_: known)
    argv, environment = entered(monkeypatch, "status")
    assert containers.STATES in options(argv, "--env")
    monkeypatch.setenv(containers.STATES, environment[containers.STATES])
    assert stack.states(stack.read_stack()) == {
        "kafka": stack.State("RUNNING", "container dock-kafka", "2026-01-02T03:04:05Z"),
        "postgres": stack.State("EXITED", "container dock-postgres", None),
    }


def test_a_check_is_the_hosts_and_its_probes_run_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert containers.enter("check", ["check"]) is None
    argv, _ = entered(monkeypatch, "check", "--json")
    assert argv[-5:] == ["--entrypoint", "meteo", "meteo/hadoop:1", "check", "--json"]


def test_deploying_is_the_playbooks() -> None:
    told = r"site\.yml -e stack_name=dock -e port_offset=600` puts it up; with -e"
    with pytest.raises(UsageError, match=told):
        stack.deploy()
    with pytest.raises(UsageError, match=told):
        stack.take_down(purge=False)


def test_a_docker_that_is_away_is_one_sentence() -> None:
    with pytest.raises(UnreachableError, match="/nowhere/docker does not answer"):
        containers.states({"program": "/nowhere/docker"}, ["dock-kafka"])


def test_psql_gets_the_password_but_not_in_its_command_line() -> None:
    argv, environment = in_container(TOOLS["psql"], ["-At"], CLIENT, "dock-postgres")
    assert argv[:3] == ["docker", "exec", "--interactive"]
    assert argv[-3:] == ["dock-postgres", "/usr/lib/postgresql/15/bin/psql", "-At"]
    assert {"PGHOST", "PGPASSWORD"} <= options(argv, "--env")
    assert "geheim" not in " ".join(argv)
    assert environment["PGPASSWORD"] == "geheim"


def test_a_tool_is_told_what_its_servers_container_has(monkeypatch: pytest.MonkeyPatch, dock: Path) -> None:
    argv, _ = in_container(TOOLS["kafka-topics"], ["--list"], CLIENT, "dock-kafka")
    assert argv[argv.index("dock-kafka") + 1] == "/opt/meteo/java/bin/java"
    assert argv[-3:] == ["--bootstrap-server", "kafka:29092", "--list"]
    assert "PGPASSWORD" not in options(argv, "--env")
    argv, environment = in_container(TOOLS["hdfs"], ["dfs", "-ls"], CLIENT, "dock-namenode")
    assert f"{dock}/services/namenode/conf:/opt/meteo/hadoop/lib/*" in argv
    assert environment["HADOOP_USER_NAME"] == "hdfs"
    assert "HADOOP_USER_NAME" in options(argv, "--env")
    argv, _ = in_container(TOOLS["hdfs"], ["dfsadmin"], CLIENT, "dock-namenode")
    assert "HADOOP_USER_NAME" not in options(argv, "--env")
    monkeypatch.setenv("HADOOP_USER_NAME", "dr.who")
    argv, environment = in_container(TOOLS["hdfs"], ["dfs"], CLIENT, "dock-namenode")
    assert environment["HADOOP_USER_NAME"] == "dr.who"


def test_python_runs_beside_the_servers_with_all_settings() -> None:
    argv, environment = in_container(TOOLS["python"], ["script.py"], CLIENT, None)
    assert argv[:2] == ["docker", "run"]
    assert argv[-4:] == ["--entrypoint", "python", "meteo/hadoop:1", "script.py"]
    assert {"BOOTSTRAP_SERVERS", "DATABASE_URL", "PGPASSWORD", "JAVA_HOME"} <= options(argv, "--env")
    assert environment["JAVA_HOME"] == "/opt/meteo/java"
    assert "geheim" not in " ".join(argv)
