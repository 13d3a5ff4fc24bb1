"""The alert rules and the rendered configuration of Prometheus and Alertmanager, looked at by their own tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
ANSIBLE = PROJECT / "ansible"
ORDER = ["availability", "freshness", "saturation", "errors", "capacity"]
RULES = {area: PROJECT / "prometheus" / "rules" / f"{area}.yml" for area in ORDER}
TESTS = {area: PROJECT / "prometheus" / "tests" / f"{area}.yml" for area in ORDER}
HEADINGS = {area: (PROJECT / "docs" / "runbooks" / f"{area}.md") for area in ORDER}

PLAY = """
- hosts: {hosts}
  connection: local
  gather_facts: false
  vars_files: [{groups}/main.yml, {groups}/ports.yml, {groups}/settings.yml]
  roles: [alertmanager, prometheus]
"""
# Instead of the role that deploys: the files that it would write.
SERVICE = """
- ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.template', item.template) }}"
    dest: "{{ playbook_dir }}/{{ item.path }}"
    mode: "0600"
  loop: "{{ service_description.files }}"
"""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each rule with the area whose file it stands in."""
    for area, path in RULES.items():
        for group in read(path)["groups"]:
            for rule in group["rules"]:
                yield area, rule


def tool(name: str, *arguments: str | Path, where: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([name, *arguments], cwd=where, capture_output=True, text=True, check=False)


def ids(parameter: Any) -> str | None:
    return parameter.get("alert") if isinstance(parameter, dict) else None


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that has the roles write their files with these variables, and returns their directory."""

    def rendered(*, inventory: str = "localhost,", hosts: str = "localhost", **variables: Any) -> Path:
        directory = tmp_path_factory.mktemp("rendered")
        tasks = directory / "roles" / "service" / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(SERVICE)
        (directory / "play.yml").write_text(PLAY.format(groups=ANSIBLE / "group_vars" / "all", hosts=hosts))
        given = {
            "ansible_python_interpreter": sys.executable,
            "meteo_home": "/m",
            "project": str(PROJECT),
            "preflight_monitoring_programs": {},
            "preflight_monitoring_missing": "",
            "runtime": "process",
            # Not that of a stack that another test of this process has put up.
            "port_offset": 0,
            **variables,
        }
        command: list[str | Path] = [
            *(Path(sys.executable).parent / "ansible-playbook", "-i", inventory, directory / "play.yml"),
            *("-e", json.dumps(given)),
        ]
        environment = {
            "ANSIBLE_ROLES_PATH": f"{directory / 'roles'}:{ANSIBLE / 'roles'}",
            "ANSIBLE_LOOKUP_PLUGINS": str(ANSIBLE / "lookup_plugins"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "LC_ALL": "C.UTF-8",
        }
        ran = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        return directory

    return rendered


def test_the_rules_are_valid() -> None:
    checked = tool("promtool", "check", "rules", *RULES.values())
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("area", ORDER)
def test_the_rules_fire_and_keep_quiet_as_their_tests_say(area: str) -> None:
    tested = tool("promtool", "test", "rules", TESTS[area])
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_rule_has_a_test_that_raises_it_and_one_that_keeps_it_quiet() -> None:
    for area in ORDER:
        loud, quiet = set(), set()
        for test in read(TESTS[area])["tests"]:
            for case in test["alert_rule_test"]:
                (loud if case["exp_alerts"] else quiet).add(case["alertname"])
        names = {rule["alert"] for of, rule in rules() if of == area}
        assert names
        assert loud == names
        assert quiet == names


def test_a_quiet_test_has_the_series_that_the_rule_reads() -> None:
    """A rule is quiet, too, when a name is mistyped: such a test would prove nothing."""
    expressions = {rule["alert"]: rule["expr"] for _, rule in rules()}
    for area in ORDER:
        for test in read(TESTS[area])["tests"]:
            read_names = {series["series"].partition("{")[0] for series in test["input_series"]}
            for case in test["alert_rule_test"]:
                assert any(name in expressions[case["alertname"]] for name in read_names), test["name"]


@pytest.mark.parametrize(("area", "rule"), list(rules()), ids=ids)
def test_a_rule_says_what_it_must(area: str, rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Meteo([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["labels"]) <= {"severity", "follows_from"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert "{{" not in summary
    assert summary.endswith(".")
    assert len(summary) < 80
    assert re.search(r"\./meteo|pg_stat|du -sh|hdfs |Stop other|kafka", description), "no first thing to do"
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == f"docs/runbooks/{area}.md"
    assert anchor == rule["alert"].lower()
    assert f"\n## {rule['alert']}\n" in HEADINGS[area].read_text("utf-8")


def test_no_name_is_given_twice_and_no_runbook_is_left_over() -> None:
    names = [rule["alert"] for _, rule in rules()]
    assert len(names) == len(set(names))
    written = {name for page in HEADINGS.values() for name in re.findall(r"^## (Meteo\w+)$", page.read_text(), re.M)}
    assert written == set(names)


def test_every_metric_of_ours_in_a_rule_is_documented() -> None:
    page = (PROJECT / "docs" / "metrics.md").read_text("utf-8")
    used = {name for _, rule in rules() for name in re.findall(r"\bmeteo_[a-z_]+", rule["expr"])}
    assert len(used) > 10
    assert {name for name in used if f"`{name.removesuffix('_total')}`" not in page} == set()


def test_what_an_alert_follows_from_is_something_that_explains() -> None:
    explains = set(read(ANSIBLE / "roles" / "alertmanager" / "defaults" / "main.yml")["alertmanager_explains"])
    named = {word for _, rule in rules() for word in rule["labels"].get("follows_from", "").split()}
    assert named == explains


@pytest.fixture(scope="module")
def defaults(render: Any) -> Path:
    """What is deployed when nobody says anything else."""
    directory: Path = render()
    return directory


def test_the_rendered_configuration_is_valid(defaults: Path) -> None:
    directory = defaults
    checked = tool("promtool", "check", "config", directory / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(list(rules()))} rules found" in checked.stdout
    checked = tool("amtool", "check-config", directory / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_stand_in_the_order_in_which_they_matter(defaults: Path) -> None:
    assert [group["name"] for group in read(defaults / "rules.yml")["groups"]] == ORDER


def test_targets_are_the_hosts_of_the_inventory(render: Any, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(
        "[all:vars]\nansible_connection=local\n[kafka]\nk[1:3]\n[hadoop_workers]\nw1\nw2\n[monitoring]\nm\n"
        "[services]\ns\n[all:children]\nkafka\nhadoop_workers\nmonitoring\nservices\n"
    )
    variables = {"metrics_address": "{{ inventory_hostname }}.example", "services_enabled": False}
    directory = render(inventory=str(inventory), hosts="monitoring", **variables)
    scraped = {
        job["job_name"]: [target for static in job["static_configs"] for target in static["targets"]]
        for job in read(directory / "prometheus.yml")["scrape_configs"]
    }
    assert scraped["kafka"] == [f"k{number}.example:9404" for number in (1, 2, 3)]
    assert scraped["datanode"] == ["w1.example:9864", "w2.example:9864"]
    assert len(scraped["host"]) == 7
    assert scraped["postgres"] == []
    assert "producer" not in scraped


def test_patience_stretches_every_duration(render: Any) -> None:
    before = {rule["alert"]: rule for _, rule in rules()}
    for group in read(render(prometheus_patience=0.1) / "rules.yml")["groups"]:
        for rule in group["rules"]:
            was = before[rule["alert"]]
            assert was["alert"] == rule["alert"]
            if "for" in was:
                assert milliseconds(rule["for"]) == milliseconds(was["for"]) / 10
            wide = list(map(milliseconds, re.findall(r"\[(\w+)\]", was["expr"])))
            narrow = list(map(milliseconds, re.findall(r"\[(\w+)\]", rule["expr"])))
            assert narrow == [max(5_000, window / 10) for window in wide]


def milliseconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]


def examples() -> list[str]:
    """The variables that docs/monitoring.md shows."""
    page = (PROJECT / "docs" / "monitoring.md").read_text("utf-8")
    return re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)


@pytest.mark.parametrize("example", examples(), ids=lambda text: text.split(":")[0].strip("# \n")[:30])
def test_the_examples_of_sending_alerts_are_accepted(render: Any, example: str) -> None:
    directory = render(**yaml.safe_load(example))
    checked = tool("amtool", "check-config", directory / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    [receiver] = read(directory / "alertmanager.yml")["receivers"]
    assert len(receiver) > 1


@pytest.mark.parametrize(
    ("down", "follows", "sent"),
    [("kafka", "kafka postgres producer", False), ("kafka", "postgres", True), ("hbase-master", "hbase-master", False)],
)
def test_a_server_that_is_down_silences_only_what_follows_from_it(
    defaults: Path, down: str, follows: str, sent: bool
) -> None:
    """The matchers of the rendered inhibition, as Alertmanager anchors them."""
    [rule] = [
        rule
        for rule in read(defaults / "alertmanager.yml")["inhibit_rules"]
        if f'job = "{down}"' in rule["source_matchers"]
    ]
    assert re.search(r'"(.*)"', rule["source_matchers"][0])[1] == "MeteoServerDown|MeteoServiceDown"  # type: ignore[index]
    [target] = rule["target_matchers"]
    pattern = re.search(r'"(.*)"', target)[1]  # type: ignore[index]
    assert (re.fullmatch(pattern, follows) is None) is sent
