"""What a user sets reaches the deployed service that reads it; told by the roles themselves, without deploying."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from meteo_common.settings import Settings

ANSIBLE = Path(__file__).parents[1] / "ansible"
SERVICES = ("producer", "consumer", "export", "aggregate", "page")
NAMES = {name.upper() for name in Settings.model_fields}
SECRETS = {
    name.upper()
    for name, field in Settings.model_fields.items()
    if SecretStr in {field.annotation, *get_args(field.annotation)}
}
OF_THE_STACK = {
    "BOOTSTRAP_SERVERS", "DATABASE_URL", "HDFS_URL", "HBASE_HOST", "HBASE_PORT", "CONSUMER_INSTANCE",
    "HADOOP_CONF_DIR", "HADOOP_CLASSPATH_JARS", "METEO_STATE_DIR", "METEO_METRICS_PORT",
    "METEO_STACK_FILE", "METEO_PAGE_PORT", "METEO_LISTEN_ADDRESS",
}  # fmt: skip
"""Settings that a deployment makes itself: its services speak to its servers, whatever the user's tools speak to."""

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{groups}/main.yml, {groups}/ports.yml, {groups}/settings.yml]
  roles: [producer, consumer, export, aggregate, page]
"""
# Instead of the role that deploys: what it was told.
SERVICE = """
- ansible.builtin.copy:
    content: "{{ service_description | to_json }}"
    dest: "{{ playbook_dir }}/{{ service_description.name }}.json"
    mode: "0600"
"""


@pytest.fixture
def describe(tmp_path: Path) -> Any:
    """A function that runs the roles with a user's environment and returns each service's description by its name."""
    project = tmp_path / "ansible"
    tasks = project / "roles" / "service" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text(SERVICE)
    (project / "play.yml").write_text(PLAY.format(groups=ANSIBLE / "group_vars" / "all"))
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".stamp").write_text("1")
    (tmp_path / "stack").symlink_to(ANSIBLE.parent / "stack")
    stack = {"ansible_python_interpreter": sys.executable, "meteo_home": tmp_path}
    stack |= {"preflight_java_home": "/java", "postgres_meteo_password": "geheim"}
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    clean |= {"ANSIBLE_ROLES_PATH": f"{ANSIBLE}/roles", "ANSIBLE_LOOKUP_PLUGINS": f"{ANSIBLE}/lookup_plugins"}
    clean |= {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_HOME": str(tmp_path), "METEO_STACK": "described"}

    def run(**user: str) -> dict[str, dict[str, Any]]:
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", project / "play.yml"]
        command += [word for name, value in stack.items() for word in ("-e", f"{name}={value}")]
        ran = subprocess.run(
            command, env=clean | user, cwd=project, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return {name: json.loads((project / f"{name}.json").read_text()) for name in SERVICES}

    return run


def test_no_setting_is_forgotten(describe: Any) -> None:
    services = describe(**{name: f"what the user says of {name}" for name in NAMES})
    for name in NAMES:
        shown = {service: told["env"][name] for service, told in services.items() if name in told["env"]}
        hidden = {service: told["secrets"][name] for service, told in services.items() if name in told["secrets"]}
        said = {**shown, **hidden}
        assert said, f"{name} reaches no service"
        assert not (shown if name in SECRETS else hidden), name
        if name in OF_THE_STACK:
            assert f"what the user says of {name}" not in said.values()
        else:
            assert set(said.values()) == {f"what the user says of {name}"}
    for name in ("OPENWEATHER_API_KEY", "VISUAL_CROSSING_API_KEY"):
        assert [service for service, told in services.items() if name in told["secrets"]] == ["producer"]


def test_what_is_not_set_is_left_to_the_code(describe: Any) -> None:
    services = describe()
    for told in services.values():
        assert "" not in {**told["env"], **told["secrets"]}.values()
    producer = services["producer"]
    # The answers that were refused go to PostgreSQL.
    assert producer["secrets"].keys() == {"DATABASE_URL"}
    assert producer["secrets"]["DATABASE_URL"].startswith("postgresql://meteo:geheim@127.0.0.1:")
    assert not producer["env"].keys() & {"CITY", "FALLBACK", "OPEN_METEO_BUDGET", "SIMULATION_SEED", "PRODUCE_EVERY"}
    assert producer["argv"][-3:] == ["produce", "--source", "open-meteo"]


def test_a_setting_restarts_only_the_service_that_reads_it(describe: Any) -> None:
    before, after = describe(), describe(OPEN_METEO_BUDGET="100/1d")
    assert [name for name in SERVICES if before[name] != after[name]] == ["producer"]
