"""The interfaces to Kafka and PostgreSQL: seen in a browser when switched on, gone when switched off."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
import yaml
from browsing import Browser, browser
from kafka import KafkaConsumer, KafkaProducer
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from tiers import eventually

from meteo_common.settings import meteo_home

from .conftest import DEPLOY_OFFSET, PROGRAMS, Deployment, alive

pytestmark = pytest.mark.deployment
SECONDS = 120
KAFKA, KAFKA_UI, PGADMIN = 9092, 8080, 5050
SERVERS = {"kafka", "postgres"}
OFF = {"services_enabled": False, "monitoring_enabled": False}
ON = {**OFF, "kafka_ui_enabled": True, "pgadmin_enabled": True}
# kaskade draws on a canvas: what a person reads is what its terminal was sent.
LISTEN = """
const heard = [], decoder = new TextDecoder();
window.heard = () => heard.join("").replace(/\\x1b\\[[0-9;?]*[A-Za-z]/g, "");
const Real = WebSocket;
window.WebSocket = class extends Real {
    constructor(...given) {
        super(...given);
        this.addEventListener("message", ({data}) => {
            if (typeof data !== "string") heard.push(decoder.decode(data));
        });
    }
};
"""


@pytest.fixture(scope="module")
def interfaces() -> Iterator[Deployment]:
    """Kafka, PostgreSQL and their interfaces."""
    deployment = Deployment("interfaces", DEPLOY_OFFSET, Path(__file__).with_name("interfaces.ini"))
    deployment.down(purge=True)
    try:
        run = deployment.up(**ON)
        assert run.code == 0, run.output
        yield deployment
    finally:
        gone = deployment.down(purge=True)
    assert gone.code == 0, gone.output


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as opened:
        opened.tell("Page.addScriptToEvaluateOnNewDocument", source=LISTEN)
        yield opened


def services(stack: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stack.directory / "stack.json").read_text("utf-8"))["services"]
    return found


def address(stack: Deployment, name: str) -> str:
    return str(services(stack)[name]["urls"][0]["url"])


def secrets(stack: Deployment) -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load((stack.directory / "secrets.yml").read_text("utf-8"))
    return found


def reads(window: Browser, *words: str) -> None:
    """Wait until the terminal has shown each of these words."""
    for word in words:
        window.wait(f"return window.heard().includes({word!r})", SECONDS)


def foreign(window: Browser) -> list[str]:
    """Return what the page loaded, or wanted to, from elsewhere."""
    found = window.run(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
        ".filter(name => !name.startsWith(location.origin) && !name.startsWith('data:'))"
    )
    assert isinstance(found, list)
    return found


def test_both_run_and_are_listed(interfaces: Deployment) -> None:
    assert set(interfaces.processes()) == SERVERS | {"kafka-ui", "pgadmin"}
    listed = subprocess.run(
        [PROGRAMS / "meteo", "urls"],
        env={**os.environ, "METEO_STACK": interfaces.name, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("kafka-ui", "pgadmin"):
        assert address(interfaces, name) in listed


def listening(stack: Deployment, port: int) -> list[str]:
    """Return the addresses, as the kernel writes them, on which something listens on a port of the stack."""
    table = Path("/proc/net/tcp").read_text("ascii") + Path("/proc/net/tcp6").read_text("ascii")
    return re.findall(rf"^ *\d+: (\w+):{stack.offset + port:04X} \w+:0000 0A ", table, re.M)


def test_both_listen_on_this_machine_only(interfaces: Deployment) -> None:
    for port in (KAFKA_UI, PGADMIN):
        assert listening(interfaces, port) == ["0100007F"], port


def test_no_password_shows(interfaces: Deployment) -> None:
    for name in ("pgadmin_password", "pgadmin_postgres_password"):
        password = secrets(interfaces)[name]
        assert len(password) == 32
        assert password not in (interfaces.directory / "stack.json").read_text("utf-8")
        listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
        assert password not in listed.stdout
        for path in (interfaces.directory / "services").rglob("*"):
            if path.is_file() and password.encode() in path.read_bytes():
                assert path.stat().st_mode & 0o077 == 0, path


def test_a_second_run_changes_nothing(interfaces: Deployment) -> None:
    before = interfaces.processes()
    run = interfaces.up(**ON)
    assert (run.code, run.changed) == (0, 0), run.output
    assert interfaces.processes() == before


@pytest.fixture
def messages(interfaces: Deployment) -> None:
    """Eleven messages in each partition, and a group that has taken none of them."""
    servers = interfaces.settings()["BOOTSTRAP_SERVERS"]
    producer = KafkaProducer(bootstrap_servers=servers)
    for number in range(33):
        value = json.dumps({"station_id": f"station-{number}"}).encode()
        producer.send("weather-api", key=b"key", value=value, partition=number % 3)
    producer.flush(30)
    producer.close()
    consumer = KafkaConsumer("weather-api", bootstrap_servers=servers, group_id="laggard", auto_offset_reset="earliest")
    eventually("the group's partitions", lambda: consumer.poll(1000) and consumer.assignment(), SECONDS)
    for partition in consumer.assignment():
        consumer.seek(partition, 0)
    consumer.commit()
    consumer.close(autocommit=False)


def opens_last_topic(window: Browser, topic: str) -> bool:
    """Try to open the last topic of the list: kaskade opens the one before if it has not followed the cursor yet."""
    keys = ActionChains(window.driver)
    for key in (Keys.ESCAPE, Keys.DOWN, Keys.ENTER):
        keys.send_keys(key).pause(1)
    keys.perform()
    return bool(window.run(f"return window.heard().includes('Topic Details [{topic}]')"))


@pytest.mark.usefixtures("messages")
def test_kafka_ui_shows_topics_groups_and_messages(interfaces: Deployment, window: Browser) -> None:
    window.driver.get(address(interfaces, "kafka-ui"))
    reads(window, "weather-api", "≈33")
    eventually("the window of the topic", lambda: opens_last_topic(window, "weather-api"), SECONDS)
    reads(window, "Group Offsets [3]")
    ActionChains(window.driver).send_keys(Keys.RIGHT, Keys.RIGHT).perform()
    reads(window, "laggard")
    assert foreign(window) == []

    window.driver.find_element(By.TAG_NAME, "button").click()
    window.wait("return location.search === '?topic=weather-api'", SECONDS)
    # The newest eight of each partition.
    reads(window, *(f"station-{number}" for number in range(9, 33)))
    assert foreign(window) == []


def test_kafka_ui_answers_its_own_page_only(interfaces: Deployment) -> None:
    base = address(interfaces, "kafka-ui")
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "rebound.example"}):
        answer = requests.get(f"{base}sessions/topics", headers={**upgrade, **headers}, timeout=30)
        assert answer.status_code == 403, headers
    answer = requests.get(f"{base}messages?topic=nowhere", timeout=30)
    assert (answer.status_code, answer.text[:24]) == (404, "There is no such topic; ")
    assert "weather-api" in answer.text


def open_node(window: Browser, name: str, child: str) -> None:
    """Open an entry of pgAdmin's tree, as often as it takes until it shows one of its own."""

    def labels(wanted: str) -> list[Any]:
        path = f"//*[contains(@class, 'file-name') and starts-with(normalize-space(.), '{wanted}')]"
        return window.driver.find_elements(By.XPATH, path)

    def opened() -> bool:
        if not labels(child) and labels(name):
            try:
                ActionChains(window.driver).double_click(labels(name)[0]).perform()
            except StaleElementReferenceException:  # the tree was drawn anew
                return False
        return bool(labels(child))

    eventually(f"{child} below {name}", opened, SECONDS, 5)


def test_pgadmin_logs_in_and_shows_the_database(interfaces: Deployment, window: Browser) -> None:
    base = address(interfaces, "pgadmin")
    assert "/login" in requests.get(f"{base}browser/", timeout=30).url
    window.driver.get(base)
    window.wait("return document.querySelector('input[name=email]') !== null", SECONDS)
    window.driver.find_element(By.NAME, "email").send_keys("meteo@example.org")
    window.driver.find_element(By.NAME, "password").send_keys(secrets(interfaces)["pgadmin_password"], Keys.ENTER)
    open_node(window, "Servers", interfaces.name)
    open_node(window, interfaces.name, "Databases")
    open_node(window, "Databases", "weatherdb")
    assert foreign(window) == []


def test_pgadmins_role_may_only_read(interfaces: Deployment) -> None:
    url = interfaces.settings()["DATABASE_URL"]
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE seen AS SELECT 'row' AS word")
    connection.close()
    place = url.rpartition("@")[2]
    reader = psycopg2.connect(f"postgresql://pgadmin:{secrets(interfaces)['pgadmin_postgres_password']}@{place}")
    reader.autocommit = True
    try:
        with reader.cursor() as cursor:
            cursor.execute("SELECT word FROM seen")
            assert cursor.fetchall() == [("row",)]
            cursor.execute("SET default_transaction_read_only = off")
            for statement in ("DELETE FROM seen", "CREATE TABLE mine (word text)"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)
    finally:
        reader.close()


def test_switched_off_they_end_in_time_and_are_gone(interfaces: Deployment, window: Browser) -> None:
    window.driver.get(address(interfaces, "kafka-ui"))
    reads(window, "weather-api")
    assert set(services(interfaces)) == SERVERS | {"kafka-ui", "pgadmin"}
    run = interfaces.up(**OFF)
    assert run.code == 0, run.output
    assert set(interfaces.processes()) == SERVERS
    assert set(services(interfaces)) == SERVERS
    assert listening(interfaces, KAFKA_UI) == listening(interfaces, PGADMIN) == []
    # Nor a kaskade of a page that was open.
    assert not [line for line in alive(meteo_home() / "venvs") if str(interfaces.offset + KAFKA) in line]
    assert "killing" not in (interfaces.directory / "logs" / "supervisord.log").read_text("utf-8")
    again = interfaces.up(**OFF)
    assert (again.code, again.changed) == (0, 0), again.output
