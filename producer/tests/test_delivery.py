"""Delivery to a real broker, on topics of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from pytest_httpserver import HTTPServer
from recordings import FOLDER

from meteo_common.errors import UnreachableError, UsageError
from meteo_common.message import Message, decode, encode
from meteo_common.settings import Settings
from meteo_producer.delivery import Delivery
from meteo_producer.produce import play, produce_once
from meteo_producer.replay import Replay
from meteo_producer.source import Selection, as_record

PARTITIONS = 3
OPEN_METEO = "om_forecast__jakobheine__today-dresden__0-44967"


@pytest.fixture
def topic_settings(settings: Settings) -> Iterator[Settings]:
    """The stack's settings with a topic that ends with the test."""
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    name = f"test-producer-{uuid4().hex[:8]}"
    admin.create_topics({name: {"num_partitions": PARTITIONS, "replication_factor": 1}}, wait_for_metadata=True)
    yield settings.model_copy(update={"topic_name": name})
    admin.delete_topics([name])
    admin.close()


def records(settings: Settings) -> list[tuple[int, bytes, bytes]]:
    """Return partition, key and value of everything in the topic."""
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False)
    partitions = [TopicPartition(settings.topic_name, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    found = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for batch in consumer.poll(timeout_ms=1000).values():
            found += [(record.partition, record.key, record.value) for record in batch]
    consumer.close()
    return found


def some(number: int) -> list[Message]:
    played = iter(Replay(Settings(), Selection()))
    return [next(played) for _ in range(number)]


@pytest.mark.stack
def test_the_whole_replay_in_under_20_seconds(topic_settings: Settings) -> None:
    started = time.monotonic()
    assert play(topic_settings, Replay(topic_settings, Selection())) == 26_115
    assert time.monotonic() - started < 20
    found = records(topic_settings)
    assert len(found) == 26_115
    assert {key for _, key, _ in found} == {b"replay:EWR", b"replay:JFK", b"replay:LGA"}
    partition_of = {key: partition for partition, key, _ in found}
    assert all(partition_of[key] == partition for partition, key, _ in found), "a station keeps to its partition"
    expected = sorted(encode(message) for message in Replay(topic_settings, Selection()))
    assert sorted(value for _, _, value in found) == expected


@pytest.mark.stack
def test_a_poll_through_http_to_the_topic(topic_settings: Settings, httpserver: HTTPServer, tmp_path: Path) -> None:
    body = (FOLDER / "open-meteo" / f"{OPEN_METEO}.json").read_text(encoding="utf-8")
    httpserver.expect_request("/v1/forecast").respond_with_data(body)
    httpserver.expect_request("/v1/air-quality").respond_with_data("", status=503)
    url = httpserver.url_for("")
    given = topic_settings.model_copy(
        update={
            "open_meteo_url": url,
            "open_meteo_air_quality_url": url,
            "city": "Dresden,DE@51.05,13.74",
            "meteo_state_dir": tmp_path,
        }
    )
    assert produce_once(given, "open-meteo") == 1
    ((_, key, value),) = records(given)
    message = decode(value)
    assert key == b"open-meteo:51.05,13.74"
    assert message.city == "Dresden"
    assert message.raw == {"current": msgspec.json.decode(body)}


@pytest.mark.stack
def test_a_topic_that_does_not_exist(settings: Settings) -> None:
    delivery = Delivery(settings.model_copy(update={"topic_name": "no-such-topic"}), patience=3)
    with pytest.raises(UsageError, match="has no topic 'no-such-topic'"):
        delivery.connect()


@pytest.mark.stack
def test_what_is_not_acknowledged_is_named(topic_settings: Settings) -> None:
    records_of = [as_record(message) for message in some(3)]
    delivery = Delivery(topic_settings)
    delivery.send(*records_of[0])
    assert delivery.flush() == [0]
    delivery.connect()
    delivery.send(*records_of[1])
    # Larger than Kafka's clients send: refused before it leaves.
    delivery.send(b"replay:EWR", b"x" * 2_000_000)
    delivery.send(*records_of[2])
    assert delivery.flush() == [1]
    assert not delivery.connected
    assert delivery.delivered == 2
    assert sorted(value for _, _, value in records(topic_settings)) == sorted(value for _, value in records_of[1:])


@pytest.mark.stack
def test_a_recording_that_was_not_delivered_whole_says_so(topic_settings: Settings) -> None:
    class Large:
        name = "large"

        def __len__(self) -> int:
            return 1

        def records(self) -> Iterator[tuple[bytes, bytes]]:
            yield b"replay:EWR", b"x" * 2_000_000

    with pytest.raises(UnreachableError, match="undelivered messages: 1"):
        play(topic_settings, Large())


@pytest.mark.stack
def test_the_service_polls_and_stops_within_10_seconds(
    topic_settings: Settings, httpserver: HTTPServer, tmp_path: Path
) -> None:
    body = (FOLDER / "open-meteo" / f"{OPEN_METEO}.json").read_text(encoding="utf-8")
    httpserver.expect_oneshot_request("/v1/forecast").respond_with_data("", status=502)
    httpserver.expect_request("/v1/forecast").respond_with_data(body)
    url = httpserver.url_for("")
    environment = os.environ | {
        "METEO_HOME": str(tmp_path),
        "BOOTSTRAP_SERVERS": topic_settings.bootstrap_servers,
        "TOPIC_NAME": topic_settings.topic_name,
        "OPEN_METEO_URL": url,
        "OPEN_METEO_AIR_QUALITY_URL": url,
        "CITY": "Dresden,DE@51.05,13.74",
    }
    command = [sys.executable, "-c", "from meteo_producer.commands import app; app()", "produce", "--every", "1s"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 40
    while len(httpserver.log) < 8 and time.monotonic() < end:
        time.sleep(0.2)
    stopped = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=15)
    assert process.returncode == 0, log
    assert time.monotonic() - stopped < 10
    assert len(records(topic_settings)) >= 2, log
    assert "has a fault of its own (502)" in log
