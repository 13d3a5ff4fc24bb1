"""The second runtime: the whole platform as containers, deployed by the project's own inventory."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from kafka import KafkaConsumer, KafkaProducer
from test_documented_commands import RUN, Place, rank

from . import bundles
from .conftest import ANSIBLE, Deployment, flat
from .containers import BASE, ansible_playbook, daemon, make_images, run

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Docker daemon"),
]

OFFSET = 250
CONTAINERS = {
    *("kafka", "postgres", "namenode", "datanode", "resourcemanager", "nodemanager", "hbase-master", "hbase-thrift"),
    *("producer", "consumer", "export", "aggregate", "page"),
    *("prometheus", "alertmanager", "node-exporter", "postgres-exporter"),
}
WITH_SECRETS = {"producer", "consumer", "export", "aggregate", "page", "postgres-exporter"}
HEALTHY_SECONDS = 360


@dataclass(frozen=True)
class Containers:
    """The stack `containers`, and what deploys and looks at it."""

    docker: str
    deployment: Deployment

    def send(self, value: bytes) -> int:
        """Produce a record from the host; its offset."""
        producer = KafkaProducer(bootstrap_servers=f"127.0.0.1:{self.port(9092)}")
        sent = producer.send("weather-api", value).get(30)
        producer.close()
        return int(sent.offset)

    def inspect(self) -> dict[str, dict[str, Any]]:
        """Return what Docker knows of each container of the stack, by the service's name."""
        names = run(self.docker, "ps", "--all", "--format", "{{.Names}}").split()
        own = [name for name in names if name.startswith("containers-")]
        found = json.loads(run(self.docker, "inspect", *own)) if own else []
        return {each["Name"].removeprefix("/containers-"): each for each in found}

    def unwell(self) -> list[str]:
        """Return the containers that are not healthy, with their states."""
        states = {name: each["State"] for name, each in self.inspect().items()}
        return [f"{name}: {state['Status']}" for name, state in states.items() if not is_healthy(state)]

    def wait_until_healthy(self) -> None:
        """Wait until every container is."""
        end = time.monotonic() + HEALTHY_SECONDS
        while unwell := self.unwell():
            if time.monotonic() > end:
                logs = run(self.docker, "logs", "--tail", "60", f"containers-{unwell[0].partition(':')[0]}")
                pytest.fail(f"not healthy within {HEALTHY_SECONDS} s: {', '.join(unwell)}\n{logs}")
            time.sleep(1)

    def port(self, number: int) -> int:
        """Return a port of the table as this stack has it."""
        return number + OFFSET


def is_healthy(state: dict[str, Any]) -> bool:
    return bool(state["Status"] == "running" and state.get("Health", {}).get("Status") == "healthy")


@pytest.fixture(scope="module")
def fresh() -> Iterator[Containers]:
    """The stack before its first deployment; nothing is left of it."""
    with daemon() as program:
        inventory = ANSIBLE / "inventory.ini"
        images = make_images(program)
        # As root has it on hosts that were hardened.
        deployment = Deployment("containers", OFFSET, inventory, ansible_playbook(), images, umask=0o077)
        deployment.down(purge=True)
        try:
            yield Containers(program, deployment)
        finally:
            gone = deployment.down(purge=True)
        assert gone.code == 0, gone.output


@pytest.fixture(scope="module")
def containers(fresh: Containers) -> Containers:
    """The stack, deployed from nothing: one group of roles, then both."""
    for arguments in (("--tags", "kafka"), ()):
        first = fresh.deployment.playbook("site.yml", arguments=arguments)
        assert first.code == 0, first.output
    return fresh


def added(output: str, file: str) -> str:
    """Return the text of a new file of a service, as a diff shows it."""
    _, found, rest = output.partition(f"services/{file}\n@@ ")
    assert found, f"{file} is not in it:\n{output}"
    lines = rest.splitlines()[1:]
    return "".join(f"{line[1:]}\n" for line in itertools.takewhile(lambda line: line.startswith("+"), lines))


def test_a_fresh_host_is_shown_what_would_run_and_stays_fresh(fresh: Containers) -> None:
    """Also of images that cannot be had here: their files are rendered all the same."""
    seen = fresh.deployment.foresee(grafana_enabled=True, kafka_ui_enabled=True, pgadmin_enabled=True)
    assert seen.code == 0, seen.output
    assert seen.changed > len(CONTAINERS)
    kafka_ui = added(seen.output, "kafka-ui/run")
    assert "export KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS=kafka:29342\n" in kafka_ui
    assert "export SPRING_SECURITY_USER_PASSWORD=********\n" in kafka_ui
    server = json.loads(added(seen.output, "pgadmin/servers.json"))["Servers"]["1"]
    assert (server["Service"], server["MaintenanceDB"]) == ("containers", "weatherdb")
    sources = yaml.safe_load(added(seen.output, "grafana/provisioning/datasources/meteo.yml"))["datasources"]
    assert {source["type"] for source in sources} == {"prometheus", "grafana-postgresql-datasource"}
    grafana = added(seen.output, "grafana/run")
    assert "export METEO_PROMETHEUS_URL=http://prometheus:9340\n" in grafana
    assert "export METEO_POSTGRESQL_ADDRESS=postgres:5682\n" in grafana
    for official in ("kafka-ui", "pgadmin", "grafana"):
        assert f"Run as a container: {official} - changed" in seen.output
    assert fresh.inspect() == {}
    assert "containers-infra-kafka" not in run(fresh.docker, "network", "ls")
    assert not fresh.deployment.directory.exists()


def test_a_port_that_somebody_else_has_gets_its_sentence(fresh: Containers) -> None:
    with socket.create_server(("127.0.0.1", fresh.port(9092))):
        seen = fresh.deployment.foresee()
    assert seen.code != 0
    assert f"Port {fresh.port(9092)}, which kafka needs (host), is taken by" in flat(seen.output)
    assert f"(process {os.getpid()})" in flat(seen.output)


def test_hadoop_alone_is_told_what_comes_first(fresh: Containers) -> None:
    alone = fresh.deployment.playbook("site.yml", arguments=("--tags", "hadoop"))
    assert alone.code != 0
    assert "has no PostgreSQL and Kafka yet" in flat(alone.output)
    assert fresh.inspect() == {}


def test_what_somebody_else_made_is_left_alone(fresh: Containers) -> None:
    run(fresh.docker, "create", "--name", "containers-grafana", BASE)
    run(fresh.docker, "volume", "create", "containers-kafka")
    try:
        refused = fresh.deployment.up()
        assert refused.code != 0
        for theirs in ("a container containers-grafana", "a volume containers-kafka"):
            assert f"There is {theirs} that the stack containers did not make" in flat(refused.output)
        assert fresh.deployment.down(purge=True).code == 0
        assert set(fresh.inspect()) == {"grafana"}
    finally:
        run(fresh.docker, "rm", "containers-grafana")
        run(fresh.docker, "volume", "rm", "containers-kafka")


def test_everything_runs_and_is_healthy(containers: Containers) -> None:
    assert set(containers.inspect()) == CONTAINERS
    assert containers.unwell() == []


def test_a_second_run_changes_nothing(containers: Containers) -> None:
    again = containers.deployment.up()
    assert (again.code, again.changed) == (0, 0), again.output


def test_a_running_host_is_shown_what_would_change_and_stays_as_it_is(containers: Containers) -> None:
    before = {name: each["Id"] for name, each in containers.inspect().items()}
    seen = containers.deployment.foresee(prometheus_retention_time="3d")
    assert (seen.code, seen.changed) == (0, 2), seen.output
    assert "storage.tsdb.retention.time=3d" in seen.output
    assert "Run as a container: prometheus - changed" in seen.output
    assert {name: each["Id"] for name, each in containers.inspect().items()} == before


@pytest.mark.parametrize(
    ("container", "holds"),
    [
        ("page", {"pkg:pypi/kafka-python@", "pkg:deb/debian/python3@"}),
        ("kafka", {"pkg:maven/kafka-server@", "pkg:deb/debian/openjdk-17-jre-headless@"}),
        ("namenode", {"pkg:maven/org.apache.hadoop/hadoop-common@", "pkg:pypi/kafka-python@", "pkg:deb/debian/curl@"}),
        ("hbase-master", {"pkg:maven/org.apache.hbase/hbase-server@"}),
    ],
)
def test_an_image_of_ours_tells_what_it_holds(containers: Containers, container: str, holds: set[str]) -> None:
    told = run(containers.docker, "exec", f"containers-{container}", "cat", "/opt/meteo/sbom.json")
    wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(told)
    assert wrong is None, wrong
    purls = [each["purl"] for each in json.loads(told)["components"]]
    assert [prefix for prefix in holds if not any(purl.startswith(prefix) for purl in purls)] == []


def test_no_container_may_more_than_it_needs(containers: Containers) -> None:
    secrets = yaml.safe_load((containers.deployment.directory / "secrets.yml").read_text("utf-8"))
    for name, each in containers.inspect().items():
        host = each["HostConfig"]
        assert int(each["Config"]["User"].partition(":")[0]) > 0, name
        assert host["ReadonlyRootfs"], name
        assert not host["Privileged"], name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        assert host["Memory"] > 0, name
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "4", "max-size": "20m"}}, name
        assert {bind["HostIp"] for binds in host["PortBindings"].values() for bind in binds} <= {"127.0.0.1"}, name
        told = json.dumps(each)
        assert [secret for secret, value in secrets.items() if value in told] == [], name


def test_weather_flows_through_all_of_them(containers: Containers) -> None:
    containers.deployment.meteo("produce", "--source", "replay", "--from", "2013-07-01", "--to", "2013-07-10")
    containers.send(b"\xff")
    containers.deployment.meteo("consume", "--until-idle")
    containers.deployment.meteo("export", "--compact")
    containers.deployment.meteo("aggregate", "--engine", "yarn")
    containers.deployment.meteo("climate")
    assert "0 mismatches" in containers.deployment.meteo("reconcile", "--deep")
    assert "replay:JFK" in containers.deployment.meteo("query", "--date", "2013-07-01")


@pytest.fixture(scope="module")
def place(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A directory with ./meteo, for the stack."""
    environment = {**os.environ, "METEO_STACK": "containers", "METEO_PORT_OFFSET": str(OFFSET)}
    names = {"http://127.0.0.1:9870": f"http://127.0.0.1:{containers.port(9870)}"}
    place = Place(tmp_path_factory.mktemp("typed"), environment, names)
    place.lay_out("{}")
    return place


@pytest.mark.parametrize("command", [command for command in RUN if rank(command) == 0])
def test_what_the_documents_have_you_type_to_look_runs(place: Place, command: str) -> None:
    place.check(command)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exec psql -c \"SELECT DISTINCT value->>'station_id' FROM weather\"", "replay:JFK"),
        ("exec hdfs dfsadmin -report", "Live datanodes (1)"),
        ("exec yarn node -list -all", "RUNNING"),
        ("exec hbase hbck", "Status: OK"),
        ("doctor", "the clock of PostgreSQL agrees"),
    ],
)
def test_they_answer_of_this_stack(containers: Containers, command: str, said: str) -> None:
    assert said in containers.deployment.meteo(*shlex.split(command))


def test_the_host_speaks_to_kafka(containers: Containers) -> None:
    offset = containers.send(b"from the host")
    wanted = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 20_000}
    consumer = KafkaConsumer("weather-api", bootstrap_servers=f"127.0.0.1:{containers.port(9092)}", **wanted)
    assert any(record.value == b"from the host" and record.offset == offset for record in consumer)
    consumer.close()


def test_a_file_opens_from_the_namenodes_page(containers: Containers) -> None:
    """The page asks for this address; curl and browsers take a name that ends in .localhost for their own machine."""
    page = f"http://127.0.0.1:{containers.port(9870)}"
    assert requests.get(f"{page}/explorer.html", timeout=10).ok
    address = f"{page}/webhdfs/v1/user/hdfs/weather/dt=2013-07-01/aggregates.jsonl?op=OPEN"
    lines = run("curl", "-sSfL", address).splitlines()
    assert {json.loads(line)["station_id"] for line in lines} == {"replay:EWR", "replay:JFK", "replay:LGA"}


def test_each_target_of_prometheus_is_up(containers: Containers) -> None:
    address = f"http://127.0.0.1:{containers.port(9090)}/api/v1/query"

    def up() -> dict[str, str]:
        found = requests.get(address, params={"query": "up"}, timeout=10).json()["data"]["result"]
        return {each["metric"]["job"]: each["value"][1] for each in found}

    end = time.monotonic() + 120
    while not (now := up()) or set(now.values()) != {"1"}:
        assert time.monotonic() < end, now
        time.sleep(1)
    assert len(now) >= 16
    disks = requests.get(address, params={"query": "node_filesystem_size_bytes"}, timeout=10).json()["data"]["result"]
    places = {each["metric"]["mountpoint"] for each in disks}
    assert "/" in places
    assert not places & {"/etc/hosts", "/etc/hostname", "/host"}


def test_a_support_bundle_holds_everything_but_the_secrets(containers: Containers, tmp_path: Path) -> None:
    before = {name: each["State"]["StartedAt"] for name, each in containers.inspect().items()}
    assert "changed=0" in containers.deployment.meteo("support-bundle", tmp_path / "bundle.tar.gz")
    assert {name: each["State"]["StartedAt"] for name, each in containers.inspect().items()} == before
    texts = bundles.unpack(tmp_path / "bundle.tar.gz")
    secrets = yaml.safe_load((containers.deployment.directory / "secrets.yml").read_text("utf-8"))
    assert bundles.holders(texts, secrets.values()) == []
    for name in CONTAINERS:
        assert texts[f"logs/{name}.log"], name
        assert "********" in texts[f"configuration/services/{name}/run"] or name not in WITH_SECRETS, name
        [told] = json.loads(texts[f"status/inspect/{name}.json"])
        assert told["State"]["Running"], name
        assert {entry.partition("=")[0] for entry in told["Config"]["Env"]} >= {"CONFIG_HASH", "PATH"}, name
    services = json.loads(texts["status/status.json"])["services"]
    assert {each["name"]: each["state"] for each in services} == dict.fromkeys(CONTAINERS, "RUNNING")
    assert "kafka-clients-" in texts["versions/jars.txt"]
    assert "hadoop-hdfs-" in texts["versions/jars.txt"]
    assert "postgres (PostgreSQL) 15" in texts["versions/servers.txt"]
    assert json.loads(texts["alerts/targets.json"])["status"] == "success"


def test_each_comes_back_when_it_is_killed_and_nothing_is_lost(containers: Containers) -> None:
    before = {name: each["State"] for name, each in containers.inspect().items()}
    for state in before.values():
        os.kill(state["Pid"], signal.SIGKILL)
    end = time.monotonic() + 60
    while still := [name for name, each in containers.inspect().items() if each["RestartCount"] == 0]:
        assert time.monotonic() < end, f"{', '.join(still)} did not start again"
        time.sleep(0.5)
    containers.wait_until_healthy()
    containers.deployment.meteo("produce", "--source", "replay", "--from", "2013-07-11", "--to", "2013-07-12")
    for command in (("consume", "--until-idle"), ("export",), ("aggregate",)):
        containers.deployment.meteo(*command)
    assert "0 mismatches" in containers.deployment.meteo("reconcile", "--deep")


def test_a_backup_is_restored_onto_the_emptied_host(containers: Containers, tmp_path: Path) -> None:
    deployment, backup, password = containers.deployment, tmp_path / "backup", tmp_path / "password"
    password.write_text("of the vault\n", "utf-8")
    vault = ("--vault-password-file", str(password))
    taken = deployment.playbook("backup.yml", arguments=vault, backup_directory=str(backup))
    assert taken.code == 0, taken.output
    assert len(json.loads((backup / "manifest.json").read_text("utf-8"))["day_list"]) >= 12
    assert deployment.down(purge=True).code == 0
    assert "containers-" not in run(containers.docker, "volume", "ls", "--quiet")
    # What a restore does not need is left out, for the time that it takes.
    lean = {"monitoring_enabled": False, "yarn_enabled": False}
    restored = deployment.playbook("restore.yml", arguments=vault, restore_directory=str(backup), **lean)
    assert restored.code == 0, restored.output
    assert "0 mismatches" in flat(restored.output)
    assert "0 mismatches" in deployment.meteo("reconcile", "--deep")
    assert "replay:JFK" in deployment.meteo("query", "--date", "2013-07-12")


def test_all_of_it_goes_away(containers: Containers) -> None:
    network = "containers-infra-kafka"
    run(containers.docker, "run", "--detach", "--name", "guest", "--network", network, BASE, "sleep", "600")
    try:
        gone = containers.deployment.up(meteo_state="absent", purge=True)
    finally:
        run(containers.docker, "rm", "--force", "guest")
    assert gone.code == 0, gone.output
    assert containers.inspect() == {}
    assert f"The network {network} stays for guest" in flat(gone.output)
    # Of a stack whose directory somebody has deleted.
    run(containers.docker, "volume", "create", "--label", "meteo.stack=containers", "containers-kafka")
    rest = containers.deployment.down(purge=True)
    assert "Its volumes are deleted" in flat(rest.output)
    assert "containers-" not in run(containers.docker, "volume", "ls", "--quiet")
    assert "containers-infra-kafka" not in run(containers.docker, "network", "ls")
    assert not containers.deployment.directory.exists()
