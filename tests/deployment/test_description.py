"""What can be known of the deployment without deploying: its schema, its ports, its style, its sentences."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_modules import load, load_preflight

from meteo_cli.scrapes import SCRAPES

PROJECT = Path(__file__).parents[2]
ANSIBLE = PROJECT / "ansible"
PROGRAMS = Path(sys.executable).parent
ROLES = sorted(path for path in (ANSIBLE / "roles").iterdir() if path.is_dir())
# 0 is what people use; 3000 and 600 the core's tests, 2400 those of ingestion, 1800 those of monitoring; the others are
# test_stack.py's, test_person.py's and test_containers.py's.
OFFSETS = (0, 250, 600, 1200, 1800, 2400, 3000, 3600)
FIRST_EPHEMERAL = 32768


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


@pytest.fixture
def preflight(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_preflight(monkeypatch)


def test_one_ports_table_serves_everything_at_once() -> None:
    ports = read(ANSIBLE / "group_vars" / "all" / "ports.yml")["port_defaults"]
    assert len(set(ports.values())) == len(ports)
    for one, other in itertools.combinations(OFFSETS, 2):
        assert not {port + one for port in ports.values()} & {port + other for port in ports.values()}
    assert max(ports.values()) + max(OFFSETS) < FIRST_EPHEMERAL


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_of_a_role_is_described(role: Path) -> None:
    specs = read(role / "meta" / "argument_specs.yml")["argument_specs"]
    defaults = set(read(role / "defaults" / "main.yml") or {})
    for entry, spec in specs.items():
        assert spec["short_description"]
        assert (role / "tasks" / f"{entry}.yml").exists()
        described = spec.get("options", {})
        assert defaults <= set(described)
        assert all(option["description"] and option["type"] for option in described.values())


def test_every_variable_of_the_whole_platform_is_described() -> None:
    descriptions = read(ANSIBLE / "meta" / "argument_specs.yml")["argument_specs"]
    options = [option for entry in descriptions.values() for option in entry["options"].items()]
    assert all(option["description"] and option["type"] for _, option in options)
    assert len({name for name, _ in options}) == len(options)
    containers = read(ANSIBLE / "group_vars" / "docker.yml")
    paths = (ANSIBLE / "group_vars" / "all").glob("*.yml")
    everywhere = {name for path in paths for name in read(path)}
    # What a role has as its default is described there, and set otherwise for containers.
    defaults = {name for role in ROLES for name in read(role / "defaults" / "main.yml")}
    assert {name for name, _ in options} == everywhere | (set(containers) - defaults)
    assert set(descriptions["containers"]["options"]) == set(containers) - defaults - everywhere


@pytest.mark.parametrize(
    ("inventory", "host"), [("inventory/embedded.ini", "embedded"), ("inventory.ini", "dockerhost")]
)
def test_variables_of_the_host_outrank_all_others(tmp_path: Path, inventory: str, host: str) -> None:
    """What the documents say of keeping a change: the platform's own files stay as they are."""
    for name in ("group_vars", "inventory", "inventory.ini"):
        (shutil.copytree if (ANSIBLE / name).is_dir() else shutil.copy)(ANSIBLE / name, tmp_path / name)
    own = {"kafka_ui_enabled": True, "bind_address": "10.0.0.1", "docker_mtu": "1400", "export_every": "2m"}
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / f"{host}.yml").write_text(yaml.safe_dump(own), "utf-8")
    command = [PROGRAMS / "ansible-inventory", "-i", tmp_path / inventory, "--playbook-dir", tmp_path, "--host", host]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {name: told[name] for name in own} == own


def test_every_port_says_what_it_is_for() -> None:
    path = ANSIBLE / "group_vars" / "all" / "ports.yml"
    told = re.findall(r"^  (\w+): \d+  # \S.+$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert told == list(read(path)["port_defaults"])


def test_preflight_knows_every_port_that_a_service_opens() -> None:
    checked = {
        name
        for table, services in read(ANSIBLE / "roles" / "preflight" / "defaults" / "main.yml").items()
        if table.endswith("_ports") and table != "preflight_ports"
        for names in services.values()
        for name in names
    }
    used = {
        name
        for path in (ANSIBLE / "roles").rglob("*.yml")
        for name in re.findall(r"bind: \"\{\{ ports\.(\w+) \}\}", path.read_text(encoding="utf-8"))
    }
    assert used == checked


def test_the_check_reads_what_prometheus_scrapes() -> None:
    role = read(ANSIBLE / "roles" / "prometheus" / "defaults" / "main.yml")
    targets = role["prometheus_server_targets"] + role["prometheus_service_targets"]
    scraped = {(target.get("service", target["job"]), target["path"]) for target in targets}
    assert {(each.service, each.path) for each in SCRAPES} == scraped


@pytest.mark.parametrize(
    "book", ["site.yml", "down.yml", "check.yml", "support-bundle.yml", "backup.yml", "restore.yml"]
)
def test_the_playbooks_parse(book: str) -> None:
    command: list[str | Path] = [PROGRAMS / "ansible-playbook", "--syntax-check", ANSIBLE / book]
    assert subprocess.run(command, cwd=ANSIBLE, capture_output=True, check=False).returncode == 0


def test_ansible_lint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [PROGRAMS / "ansible-lint", "--offline", "--nocolor", "--profile", "production"],
        cwd=ANSIBLE,
        env={**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def params(**changed: Any) -> dict[str, Any]:
    given = {
        "runtime": "process",
        "stack_name": "deploy",
        "stack_directory": "/var/lib/meteo/stacks/deploy",
        "port_offset": "0",
        "port_defaults": {"kafka": 9092},
        "ports": {"kafka": ["kafka"]},
        "java": 17,
    }
    return {**given, **changed}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stack_name": "My Stack"}, "The stack name 'My Stack' cannot be used"),
        ({"stack_name": "../x"}, "The stack name '../x' cannot be used"),
        ({"port_offset": "abc"}, "The port offset 'abc' is not a number"),
        ({"port_offset": "-5"}, "The port offset '-5' is not a number"),
        ({"port_offset": "23676"}, "would push a port to 32768; expected at most 23675"),
        ({"stack_directory": "/home/me/my stuff/x"}, "characters that the servers' settings cannot hold"),
    ],
)
def test_a_wrong_setting_gets_its_sentence(preflight: ModuleType, wrong: dict[str, str], said: str) -> None:
    [sentence] = preflight.wrong_names(params(**wrong))
    assert said in sentence


def test_right_settings_get_none(preflight: ModuleType) -> None:
    assert not list(preflight.wrong_names(params(port_offset="23675")))


def test_missing_and_old_java_get_their_sentences(preflight: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "java_homes", lambda: iter([]))
    assert "There is no Java on this machine; expected Java 17 or newer" in preflight.find_java(17)[1]
    monkeypatch.setattr(preflight, "java_homes", lambda: iter([Path("/old")]))
    monkeypatch.setattr(preflight, "java_version", lambda _home: 11)
    assert "There is only Java 11 in /old on this machine; expected Java 17" in preflight.find_java(17)[1]


def test_a_setting_comes_from_the_environment_then_the_file_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = load(ANSIBLE / "lookup_plugins" / "setting.py").LookupModule()
    here = {"playbook_dir": str(tmp_path / "ansible")}
    monkeypatch.delenv("CITY", raising=False)
    assert setting.run(["CITY", "Paris,FR"], here) == ["Paris,FR"]
    (tmp_path / ".env").write_text("# CITY=no\nCITY='Lyon,FR; Nice,FR'\n", encoding="utf-8")
    assert setting.run(["CITY", "Paris,FR"], here) == ["Lyon,FR; Nice,FR"]
    monkeypatch.setenv("CITY", "Brest,FR")
    assert setting.run(["CITY", "Paris,FR"], here) == ["Brest,FR"]


def test_a_changed_pom_is_another_directory() -> None:
    name = load(ANSIBLE / "lookup_plugins" / "artifact.py").name
    pom = (PROJECT / "stack" / "kafka" / "pom.xml").read_bytes()
    assert name("kafka", pom).startswith("kafka-4.3.1-")
    assert name("kafka", pom) != name("kafka", pom + b"\n")


def test_a_machine_without_monitoring_gets_a_sentence_and_no_failure(
    preflight: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/usr/bin/{name}")
    programs, missing = preflight.find_monitoring()
    assert missing == ""
    assert programs["node_exporter"] == "/usr/bin/prometheus-node-exporter"
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/opt/{name}" if "_" in name else None)
    programs, missing = preflight.find_monitoring()
    assert programs == {name: f"/opt/{name}" for name in ("node_exporter", "postgres_exporter")}
    assert "prometheus, prometheus-alertmanager are not installed" in missing
    assert "apt-get install prometheus prometheus-alertmanager" in missing
