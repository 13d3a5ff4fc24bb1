"""What the deployment does where a Grafana server is installed, as far as that can be known without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_modules import load_preflight

PROJECT = Path(__file__).resolve().parents[2]
ANSIBLE = PROJECT / "ansible"
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{groups}/main.yml, {groups}/ports.yml, {groups}/settings.yml]
  roles: [grafana]
"""
# Instead of the role that deploys: what it would be told.
SERVICE = """
- ansible.builtin.copy:
    content: "{{ service_description | to_json }}"
    dest: "{{ playbook_dir }}/described.json"
    mode: "0600"
"""


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load_preflight(monkeypatch).find_grafana


def described(directory: Path, grafana: dict[str, str]) -> dict[str, Any]:
    """Return what the role hands to the runtime."""
    tasks = directory / "roles" / "service" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text(SERVICE)
    (directory / "play.yml").write_text(PLAY.format(groups=ANSIBLE / "group_vars" / "all"))
    passwords = {"grafana_admin_password": "for-people", "grafana_postgres_password": "for-queries"}
    given = {
        "ansible_python_interpreter": sys.executable,
        "meteo_home": "/m",
        "project": str(PROJECT),
        "preflight_grafana": grafana,
        "runtime": "process",
        "stack_name": "s",
        "port_offset": 100,
        **passwords,
    }
    command = ["ansible-playbook", "-i", "localhost,", "play.yml", "-e", json.dumps(given)]
    ran = subprocess.run(
        # What comes before needs PostgreSQL; test_queries.py has it.
        [Path(sys.executable).parent / command[0], *command[1:], "--start-at-task", "Hand it to the runtime"],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_ROLES_PATH": f"{directory / 'roles'}:{ANSIBLE / 'roles'}",
            "ANSIBLE_LOOKUP_PLUGINS": str(ANSIBLE / "lookup_plugins"),
            "ANSIBLE_LIBRARY": str(ANSIBLE / "library"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "LC_ALL": "C.UTF-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    found: dict[str, Any] = json.loads((directory / "described.json").read_text("utf-8"))
    return found


def test_an_installed_server_is_found(find: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "grafana-v10.4.2" / "bin" / "grafana-server"
    defaults = program.parents[1] / "conf" / "defaults.ini"
    for path in (program, defaults):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert find() == {"program": str(program), "home": str(program.parents[1]), "missing": ""}
    defaults.unlink()
    assert find()["program"] == ""
    assert "docs/dashboards.md" in find()["missing"]


@pytest.mark.parametrize(("program", "verb"), [("/usr/sbin/grafana-server", []), ("/opt/grafana", ["server"])])
def test_the_server_is_started_locked_and_on_this_machine_only(tmp_path: Path, program: str, verb: list[str]) -> None:
    service = described(tmp_path, {"program": program, "home": "/usr/share/grafana", "missing": ""})
    assert service["argv"] == [program, *verb, "--homepath", "/usr/share/grafana"]
    assert service["state"] == "present"
    environment = service["env"]
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert int(environment["GF_SERVER_HTTP_PORT"]) == service["ports"][0]["bind"] == 3100
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert environment["GF_PATHS_DATA"].startswith("/m/stacks/s/data/grafana/")
    assert service["secrets"] == {
        "GF_SECURITY_ADMIN_PASSWORD": "for-people",
        "METEO_POSTGRESQL_PASSWORD": "for-queries",
    }
    assert not {"for-people", "for-queries"} & set(map(str, environment.values()))


def test_the_provisioning_gets_every_variable_that_it_names(tmp_path: Path) -> None:
    service = described(tmp_path, {"program": "/g/grafana-server", "home": "/g", "missing": ""})
    known = service["env"] | service["secrets"]
    for file in service["files"]:
        text = Path(file["template"]).read_text("utf-8")
        wanted = {word.removeprefix("$") for word in text.split() if word.startswith("$METEO_")}
        assert wanted
        assert wanted <= known.keys()
        assert yaml.safe_load(text)["apiVersion"] == 1


def test_without_a_server_the_files_are_written_all_the_same(tmp_path: Path) -> None:
    service = described(tmp_path, {"program": "", "home": "", "missing": "It is not there."})
    assert service["argv"] == []
    assert len(service["files"]) == 2
