"""Dead letters are listed, shown and replayed; a replay that is killed, or runs twice at once, sends nothing twice."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import tiers
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from conftest import PARTITIONS, Tenant

GOOD = json.dumps(tiers.recorded_message(), separators=(",", ":")).encode()
REPLAY = ("dead-letters", "replay")
KEY = b"replay:JFK"


def bury(tenant: Tenant) -> list[int]:
    """Send six records that are refused, five with a key and headers; return their ids in the order of the records."""
    values: list[bytes | None] = [b"rain", b"\xff\x00", GOOD[:-40], None, GOOD.replace(b'"city":"', b'"town":"')]
    with closing(KafkaProducer(bootstrap_servers=tenant.settings.bootstrap_servers.split(","))) as producer:
        for value in values:
            producer.send(
                tenant.settings.topic_name,
                value=value,
                key=KEY,
                partition=0,
                headers=[("a", b"x"), ("origin_offset", b"7")],
            )
        producer.flush(30)
    tiers.send(tenant, [GOOD.replace(b'"station_id":"replay', b'"station_id":"other')], partition=0)
    tiers.consume(tenant)
    return [int(number) for (number,) in tenant.query("SELECT dead_letter_id FROM dead_letters ORDER BY msg_offset")]  # type: ignore[call-overload]


def pretend_valid(tenant: Tenant, *ids: int) -> None:
    """Give letters the bytes of a valid message: what a newer version would accept."""
    tenant.query("UPDATE dead_letters SET value = %s WHERE dead_letter_id = ANY(%s)", GOOD, list(ids))


def records(tenant: Tenant) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]:
    """Return (key, value, headers) of the topic's records that are replays."""
    topic = tenant.settings.topic_name
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    with closing(KafkaConsumer(bootstrap_servers=tenant.settings.bootstrap_servers.split(","))) as consumer:
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            found += [record for some in consumer.poll(500).values() for record in some]
    return [
        (record.key, record.value, record.headers)
        for record in found
        if any(name == "origin_topic" for name, _ in record.headers)
    ]


def states(tenant: Tenant) -> list[object]:
    return [state for (state,) in tenant.query("SELECT state FROM dead_letters ORDER BY msg_offset")]


def test_list_and_show_say_all_that_is_known(tenant: Tenant) -> None:
    assert "no dead letters" in tenant.meteo("dead-letters", "list")
    ids = bury(tenant)
    listed = tenant.meteo("dead-letters", "list", "--limit", "2")
    lines = listed.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["id", str(ids[5]), str(ids[4])]
    assert "6 in all, by reason:" in listed
    assert "not JSON: JSON is malformed: invalid character (byte …)" in listed
    found = json.loads(tenant.meteo("dead-letters", "list", "--reason", "UTF-8", "--json"))
    assert found["reasons"] == {"not UTF-8": 1}
    (letter,) = found["dead_letters"]
    assert letter["dead_letter_id"] == ids[1]
    assert (letter["value"], letter["value_encoding"], letter["record_key"]) == ("ff00", "hex", "replay:JFK")
    assert json.loads(tenant.meteo("dead-letters", "list", "--state", "replayed", "--json"))["dead_letters"] == []

    shown = tenant.meteo("dead-letters", "show", str(ids[4]))
    assert "missing required field `city`" in shown
    assert "it would only become a dead letter again: not a valid message" in shown
    assert '"town":' in shown
    facts = json.loads(tenant.meteo("dead-letters", "show", str(ids[3]), "--json"))
    assert (facts["value"], facts["headers"]) == (None, [["a", "x"], ["origin_offset", "7"]])
    assert facts["refusal_now"] == "the record has no value"
    assert "There is no dead letter 999" in tiers.sentence(tiers.run(tenant, "dead-letters", "show", "999"), 2)


def test_replay_makes_new_records_that_name_their_origin(tenant: Tenant) -> None:
    ids = bury(tenant)
    topic = tenant.settings.topic_name
    told = tiers.sentence(tiers.run(tenant, *REPLAY, str(ids[0])), 1)
    assert f"Dead letter {ids[0]} was not replayed: it would only become a dead letter again: not JSON" in told
    ran = tiers.run(tenant, *REPLAY, "--all")
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "replayed 0 dead letters")
    assert records(tenant) == []

    pretend_valid(tenant, ids[0])
    assert "would replay 1 dead letter" in tenant.meteo(*REPLAY, "--all", "--dry-run")
    assert states(tenant) == ["new"] * 6
    assert "replayed 1 dead letter" in tenant.meteo(*REPLAY, "--all")
    with NamedTemporaryFile() as corrected:
        Path(corrected.name).write_bytes(GOOD)
        Path(corrected.name).chmod(0o644)  # the command reads it as the user meteo
        tenant.meteo(*REPLAY, str(ids[4]), "--file", corrected.name)
    tenant.meteo(*REPLAY, str(ids[3]), "--force")
    assert states(tenant) == ["replayed", "new", "new", "replayed", "replayed", "new"]
    assert sorted(records(tenant), key=lambda record: record[2][-1]) == [
        (
            KEY,
            value,
            [("a", b"x"), ("origin_topic", topic.encode()), ("origin_partition", b"0"), ("origin_offset", number)],
        )
        for value, number in ((GOOD, b"0"), (None, b"3"), (GOOD, b"4"))
    ]
    told = tiers.sentence(tiers.run(tenant, *REPLAY, str(ids[0])), 1)
    assert "it was replayed already" in told

    tiers.consume(tenant)
    assert tenant.query("SELECT count(*) FROM weather") == [(2,)]
    (row,) = tenant.query(
        "SELECT headers, partition, msg_offset FROM dead_letters WHERE state = 'new'"
        " ORDER BY dead_letter_id DESC LIMIT 1"
    )
    assert row[0] == [["a", "x"], ["origin_topic", topic], ["origin_partition", "0"], ["origin_offset", "3"]]
    assert tenant.query(
        "SELECT replay_partition, replay_offset FROM dead_letters WHERE dead_letter_id = %s", ids[3]
    ) == [row[1:]]
    for step in (tiers.export, tiers.aggregate):
        step(tenant)
    tiers.assert_whole(tenant, 2)


@pytest.mark.parametrize("place", ["replay.before_send", "replay.after_acknowledgement"])
def test_a_killed_replay_is_settled_by_the_next(tenant: Tenant, place: str) -> None:
    ids = bury(tenant)
    pretend_valid(tenant, *ids[:3])
    ran = tiers.run(tenant, *REPLAY, "--all", extra={"METEO_FAILPOINT": place})
    assert ran.returncode == -9
    assert states(tenant) == ["new"] * 6
    told = tenant.meteo(*REPLAY, "--all")
    found = place == "replay.after_acknowledgement"
    assert ("3 had been sent by a replay that died" in told) == found
    assert f"replayed {0 if found else 3} dead letters" in told
    assert states(tenant) == ["replayed"] * 3 + ["new"] * 3
    assert len(records(tenant)) == 3
    tiers.consume(tenant)
    places = tenant.query(
        "SELECT replay_partition, replay_offset FROM dead_letters WHERE state = 'replayed' ORDER BY 1, 2"
    )
    assert tenant.query("SELECT partition, msg_offset FROM weather ORDER BY 1, 2") == places


def test_replays_at_once_send_each_letter_once(tenant: Tenant) -> None:
    tiers.send(tenant, [b"rain"] * 1000, key=KEY)
    tiers.consume(tenant)
    tenant.query("UPDATE dead_letters SET value = %s", GOOD)
    started = [tiers.start(tenant, *REPLAY, "--all") for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert tenant.query(
        "SELECT count(*), count(DISTINCT replay_offset) FROM dead_letters WHERE state = 'replayed'"
    ) == [(1000, 1000)]
    assert len(records(tenant)) == 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Expected the ids of dead letters, or --all"),
        (("1", "--all"), "Expected the ids of dead letters, or --all"),
        (("--all", "--file", "x"), "--file gives the bytes of one dead letter"),
        (("1", "--file", "no/such/file"), "--file no/such/file cannot be read (No such file or directory)"),
        (("12345",), "There is no dead letter 12345"),
    ],
)
def test_wrong_usage_is_one_sentence(tenant: Tenant, arguments: tuple[str, ...], says: str) -> None:
    assert says in tiers.sentence(tiers.run(tenant, *REPLAY, *arguments), 2)


def test_an_absent_broker_leaves_the_letters_as_they_are(tenant: Tenant) -> None:
    pretend_valid(tenant, *bury(tenant)[:1])
    ran = tiers.run(tenant, *REPLAY, "--all", extra={"BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert "BOOTSTRAP_SERVERS" in tiers.sentence(ran, 3)
    assert tenant.query("SELECT count(*) FROM dead_letters WHERE replay_started_at IS NULL") == [(6,)]
