"""A real stack is watched: every target answers, nothing is raised while all is well, an alert is sent."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest
import yaml
from watched import PATIENCE, Watched, eventually

pytestmark = pytest.mark.deployment

PROJECT = Path(__file__).parents[1]
JOBS = {
    *("kafka", "postgres", "host", "namenode", "datanode", "resourcemanager", "nodemanager"),
    *("hbase-master", "hbase-thrift"),
    *("producer", "consumer", "export", "aggregate", "page", "prometheus", "alertmanager"),
}


def expressions() -> list[str]:
    found = []
    for path in (PROJECT / "prometheus" / "rules").glob("*.yml"):
        found += [rule["expr"] for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    return found


def test_every_target_is_up(watched: Watched) -> None:
    def all_up() -> bool:
        up = {labels["job"]: value for labels, value in watched.query("up")}
        return up.keys() >= JOBS and set(up.values()) == {1.0}

    eventually(all_up, "an answer of every target")


def test_every_rule_can_be_evaluated(watched: Watched) -> None:
    def evaluated() -> bool:
        rules = [rule for group in watched.prometheus("rules")["groups"] for rule in group["rules"]]
        return len(rules) == len(expressions()) and {rule["health"] for rule in rules} == {"ok"}

    eventually(evaluated, "an evaluation of every rule without an error")


def test_the_servers_have_every_metric_that_a_rule_reads(watched: Watched) -> None:
    """A name that a newer version gave up would keep its alert quiet for ever."""
    servers = r"\b(?:fs_namesystem|cluster_metrics|assignment|jvm|pg|node|kafka|prometheus|alertmanager|process)_\w+"
    wanted = {name for expression in expressions() for name in re.findall(servers, expression)}
    assert len(wanted) > 20
    eventually(lambda: wanted <= set(watched.prometheus("label/__name__/values")), f"all of {sorted(wanted)}")


def test_nothing_is_raised_while_all_is_well(watched: Watched) -> None:
    raised: list[set[str]] = []
    # A machine that is busy for seconds is, to rules that wait for seconds, what one is that was busy for minutes.
    while len(raised) < 3 and set() not in raised:
        watched.wait_until_calm()
        # Five minutes, made short: as long as most rules wait before they are raised.
        time.sleep(5 * 60 * PATIENCE)
        raised.append(watched.firing())
    assert set() in raised, raised


def test_no_series_begins_anew_with_each_scrape(watched: Watched) -> None:
    """A label whose value changes all the time makes a series of every value."""
    eventually(lambda: watched.query("max(scrape_series_added) < 20"), "few new series a scrape")
    assert watched.query("sum(scrape_samples_post_metric_relabeling)")[0][1] < 6_000


def test_the_exporter_may_read_statistics_and_nothing_else(watched: Watched) -> None:
    secrets = yaml.safe_load((watched.directory / "secrets.yml").read_text("utf-8"))
    address = watched.settings.database_url.get_secret_value().rpartition("@")[2]
    password = secrets["postgres_exporter_password"]
    connection = psycopg2.connect(f"postgresql://postgres_exporter:{password}@{address}")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchone() == (False, False)
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("SELECT count(*) FROM weather")
    finally:
        connection.close()
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
    assert password not in listed.stdout


def test_everything_listens_on_this_machine_only(watched: Watched) -> None:
    for server in ("prometheus", "alertmanager", "node-exporter", "postgres-exporter"):
        port = "http" if server in {"prometheus", "alertmanager"} else "metrics"
        number = int(watched.address(server, port).rpartition(":")[2])
        table = Path("/proc/net/tcp").read_text("ascii") + Path("/proc/net/tcp6").read_text("ascii")
        listening = re.findall(rf"^ *\d+: (\w+):{number:04X} \w+:0000 0A ", table, re.M)
        assert listening == ["0100007F"], server


def test_an_alert_arrives_at_the_webhook_and_its_end_too(watched: Watched) -> None:
    watched.wait_until_calm()
    watched.webhook.forget()
    watched.stop("kafka")
    try:
        [alert, *_] = eventually(
            lambda: watched.webhook.alerts("MeteoServerDown", "firing", job="kafka"), "the alert at the webhook"
        )
        assert alert["labels"]["severity"] == "critical"
        assert alert["labels"]["stack"] == "watched"
        assert "./meteo logs kafka" in alert["annotations"]["description"]
        assert alert["annotations"]["runbook_url"] == "docs/runbooks/availability.md#meteoserverdown"
        # What follows from it is seen, and held back.
        eventually(lambda: "MeteoOutboxGrows" in watched.inhibited(), "an alert that follows from it")
        assert not watched.webhook.alerts("MeteoOutboxGrows", "firing")
    finally:
        watched.start("kafka")
    eventually(lambda: watched.webhook.alerts("MeteoServerDown", "resolved", job="kafka"), "its end at the webhook")
    watched.wait_until_calm()
