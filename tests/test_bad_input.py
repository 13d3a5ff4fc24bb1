"""Records, settings, servers and topics that are not as they should be: one clear sentence, nothing lost or doubled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Any

import pytest
import tiers
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from psycopg2.extensions import parse_dsn

from conftest import PARTITIONS, Tenant, TenantMaker

CONSUME = ("consume", "--until-idle")
DAY = "2013-03-30"


def message(**changes: Any) -> bytes:
    """Return a recorded message as JSON with changes; `a__b` is the field b of a."""
    whole = tiers.recorded_message(DAY)
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = whole
        for parent in parents:
            target = target[parent]
        target[name] = value
    return json.dumps(whole).encode()


def verbatim(field: str, text: bytes) -> bytes:
    """Return a message in which a field has this very text, valid JSON or not."""
    return message(**{field: "@"}).replace(b'"@"', text)


def below(measure: str, limit: str) -> tuple[bytes, str]:
    return message(**{f"observation__{measure}": -1e6}), f"Expected `float` >= {limit} - at `$.observation.{measure}`"


def above(measure: str, limit: str) -> tuple[bytes, str]:
    return message(**{f"observation__{measure}": 1e6}), f"Expected `float` <= {limit} - at `$.observation.{measure}`"


def forecast(**step: Any) -> bytes:
    return message(forecast=[{"valid_at": "2013-03-30T12:00:00Z", "hours": 3, **step}])


def air(**quality: Any) -> bytes:
    return message(air_quality={"scale": "openweather", "observed_at": "2013-03-30T12:00:00Z", **quality})


INVALID = "not a valid message: "
SURROGATE = "contains half of a surrogate pair, which is no character"
NUL = r"contains \u0000, which JSONB cannot hold"
TOO_LARGE = "JSONB cannot hold it: value overflows numeric format"

REFUSED: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "the record has no value"),
    "empty": (b"", "the record's value is empty"),
    "text": (b"rain in Paris", "not JSON: JSON is malformed: invalid character (byte 0)"),
    "cut off": (message()[:300], "not JSON: Input data was truncated"),
    "two messages": (message() + b" {}", "not JSON: JSON is malformed: trailing characters"),
    "array": (b"[1, 2]", INVALID + "Expected `object`, got `array`"),
    "not a number": (verbatim("raw__NaN", b"NaN"), "not JSON: JSON is malformed"),
    "Latin-1": (verbatim("city", b'"Z\xfcrich"'), "not UTF-8"),
    "Latin-1 in an unknown field": (verbatim("added", b'"Z\xfcrich"'), "not UTF-8"),
    "surrogate in UTF-8": (verbatim("city", b'"\xed\xa0\x80"'), "not UTF-8"),
    "surrogate in raw": (verbatim("raw__x", rb'"\ud800"'), SURROGATE),
    "surrogate in an unknown field": (verbatim("added", rb'"\udc00 and more"'), SURROGATE),
    # The reason quotes the scale, and PostgreSQL's text cannot hold its NUL either.
    "NUL in a reason": (air(scale="a\u0000b", index=5000), "index 5000 is outside 0…1000 of the scale a\ufffdb"),
    "NUL in raw": (verbatim("raw__x", rb'"\u0000"'), NUL),
    "NUL in an unknown field": (verbatim("added", rb'{"a": ["\u0000"]}'), NUL),
    "NUL in a key": (verbatim("added", rb'{"\u0000": 1}'), NUL),
    "huge number in raw": (verbatim("raw__x", b"1e400000"), INVALID + "Number out of range - at `$.raw[...]"),
    "huge number in an unknown field": (verbatim("added", b"1e400000"), TOO_LARGE),
    "deep in raw": (verbatim("raw__x", b"[" * 20_000 + b"]" * 20_000), "nested too deeply"),
    "deep in an unknown field": (verbatim("added", b"[" * 20_000 + b"]" * 20_000), "nested too deeply"),
    "version 2": (message(schema_version=2), INVALID + "schema_version 2 is unknown (this version knows 1)"),
    "version as text": (message(schema_version="1"), INVALID + "Expected `int`, got `str` - at `$.schema_version`"),
    "no observation": (message().replace(b'"observation":', b'"weather":'), "missing required field `observation`"),
    "other source's station": (message(station_id="other:JFK"), "does not begin with its source replay"),
    "station with a newline": (message(station_id="replay:JFK\n"), "- at `$.station_id`"),
    "station with a hash": (message(station_id="replay:J#K"), "- at `$.station_id`"),
    "latitude": (message(latitude=91), "Expected `float` <= 90.0 - at `$.latitude`"),
    "too old": (message(observed_at="1939-12-31T23:59:59Z"), "observed_at is before 1940"),
    "in the future": (message(observed_at="2013-04-01T00:00:00Z"), "observed_at is more than 24 h after collected_at"),
    "end of all years": (
        message(observed_at="9999-12-31T23:59:59-05:00", collected_at="9999-12-31T23:59:59-05:00"),
        "observed_at is outside the years 2 to 9998",
    ),
    "collected at the end of all years": (message(collected_at="9999-12-31T23:59:59-05:00"), "collected_at is outside"),
    "forecast for the first day": (forecast(valid_at="0001-01-01T00:00:00+05:00"), "valid_at is outside the years"),
    "without time zone": (message(observed_at="2013-03-30T12:00:00"), "with a timezone component - at `$.observed_at`"),
    "no time": (message(observed_at="noon"), "Invalid RFC3339 encoded datetime - at `$.observed_at`"),
    "temperature": above("temperature_celsius", "60.0"),
    "frost": below("temperature_celsius", "-90.0"),
    "apparent": above("apparent_temperature_celsius", "80.0"),
    "humidity": above("humidity_percent", "100.0"),
    "pressure": below("pressure_hpa", "300.0"),
    "wind": above("wind_speed_mps", "115.0"),
    "gust": above("wind_gust_mps", "140.0"),
    "direction": above("wind_direction_degrees", "360.0"),
    "cloud cover": below("cloud_cover_percent", "0.0"),
    "visibility": above("visibility_metres", "200000.0"),
    "precipitation": above("precipitation_1h_mm", "450.0"),
    "forecast precipitation": (forecast(precipitation_mm=1001), "<= 1000.0 - at `$.forecast[0].precipitation_mm`"),
    "forecast temperature": (forecast(temperature_celsius=-91), ">= -90.0 - at `$.forecast[0].temperature_celsius`"),
    "openweather index": (air(index=6), "index 6 is outside 1…5 of the scale openweather - at `$.air_quality`"),
    "other index": (air(scale="us-epa", index=1001), "index 1001 is outside 0…1000 of the scale us-epa"),
}
ACCEPTED: dict[str, bytes] = {
    "at its limits": message(observation__temperature_celsius=60, observation__humidity_percent=0),
    "900 KB": message(raw={"current": "x" * 900_000}),
    "added fields": message(added={"more": [1, 2.5, None, True]}),
    "large number in an unknown field": verbatim("added", b"1e400"),
    "COPY's own characters": message(raw={"x": "tab\t newline\n return\r backslash\\ \\. \\N dollar$ quote\" '"}),
    "raw white space": b" \n\t" + message().replace(b", ", b",\r\n\t "),
    "escapes": verbatim("raw__x", rb'"\u00fc \ud83c\udf27 \\u0000 \/ \b\f"'),
    "every plane": json.dumps({**tiers.recorded_message(DAY), "city": "Zürich 東京 🌧"}, ensure_ascii=False).encode(),
    "fraction of a second": message(observed_at="2013-03-30T12:00:00.123456789+01:00"),
    "the same key twice": message()[:-1] + b', "city": "Paris"}',
}


def exactly(text: str | bytes) -> object:
    """Return JSON's value without making numbers floats."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def test_every_record_becomes_a_row_or_a_dead_letter_with_its_reason(tenant: Tenant) -> None:
    good = message()
    values: list[bytes | None] = []
    reasons: dict[int, tuple[str, str]] = {}
    for name, (value, reason) in REFUSED.items():
        reasons[len(values)] = name, reason
        values += [value, good]
    first_accepted = len(values)
    values += ACCEPTED.values()
    tiers.send(tenant, values, key=b"somebody else's key", max_request_size=1_000_000)
    ran = tiers.run(tenant, *CONSUME)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr

    letters = tenant.query("SELECT msg_offset, reason, value FROM dead_letters ORDER BY msg_offset")
    assert [offset for offset, _, _ in letters] == sorted(reasons)
    for offset, found, value in letters:
        name, expected = reasons[offset]  # type: ignore[index]
        assert expected in str(found), name
        assert (None if value is None else bytes(value)) == values[offset], name  # type: ignore[call-overload, index]
    rows = dict(tenant.query("SELECT msg_offset, value::text FROM weather"))
    assert sorted(rows) == [offset for offset in range(len(values)) if offset not in reasons]  # type: ignore[type-var]
    for offset, (name, value) in enumerate(ACCEPTED.items(), start=first_accepted):
        assert exactly(str(rows[offset])) == exactly(value), name

    for command in (("export",), ("aggregate",)):
        ran = tiers.run(tenant, *command)
        assert ran.returncode == 0, ran.stderr
        assert "did not count" not in ran.stdout
    tiers.assert_whole(tenant, len(rows))


@pytest.fixture(scope="module")
def settled(make_tenant: TenantMaker) -> Tenant:
    """A tenant that has been through every stage, with its time zone stored."""
    tenant = make_tenant()
    tiers.publish(tenant, DAY, DAY)
    for step in (tiers.consume, tiers.export, tiers.aggregate):
        step(tenant)
    return tenant


def other_url(tenant: Tenant, pattern: str, replacement: str) -> dict[str, str]:
    url = tenant.settings.database_url.get_secret_value()
    changed = re.sub(pattern, replacement, url)
    assert changed != url
    return {"DATABASE_URL": changed}


@pytest.mark.parametrize(
    ("command", "extra", "says"),
    [
        (("aggregate", "--date", "1999-01-01"), {}, "There is no partition of 1999-01-01"),
        (("reconcile", "--date", "1999-01-01"), {}, "Nothing is known of 1999-01-01"),
        (("export",), {"WEATHER_TIMEZONE": "UTC"}, "WEATHER_TIMEZONE is 'UTC'"),
        (("aggregate",), {"WEATHER_TIMEZONE": "UTC"}, "WEATHER_TIMEZONE is 'UTC'"),
        (("reconcile",), {"WEATHER_TIMEZONE": "UTC"}, "WEATHER_TIMEZONE is 'UTC'"),
        (CONSUME, {"TOPIC_NAME": "no-such-topic"}, "no topic no-such-topic: correct TOPIC_NAME"),
        (("produce", "--source", "replay"), {"TOPIC_NAME": "no-such-topic"}, "no topic 'no-such-topic' (TOPIC_NAME)"),
        (("export",), {"HDFS_BASE_PATH": "/not-ours"}, "HDFS refuses: Permission denied"),
        (("export",), {"HDFS_USER": "somebody"}, "check HDFS_USER"),
    ],
)
def test_wrong_usage_is_one_sentence(
    settled: Tenant, command: tuple[str, ...], extra: dict[str, str], says: str
) -> None:
    if "HDFS_BASE_PATH" in extra or "HDFS_USER" in extra:
        tiers.publish(settled, DAY, DAY)
        tiers.consume(settled)
    assert says in tiers.sentence(tiers.run(settled, *command, extra=extra), 2)


@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        (r":[^:@/]+@", ":wrong@", "password authentication failed"),
        (r":[^:@/]+@", "@", "no password supplied"),
        (r"/[^/]+$", "/nowhere", 'database "nowhere" does not exist'),
        (r"^\w+", "mysql", "is not a libpq URL"),
    ],
)
def test_a_wrong_database_url_is_one_sentence_without_the_password(
    settled: Tenant, pattern: str, replacement: str, says: str
) -> None:
    ran = tiers.run(settled, "export", extra=other_url(settled, pattern, replacement))
    told = tiers.sentence(ran, 2)
    assert says in told
    assert "DATABASE_URL" in told
    password = parse_dsn(settled.settings.database_url.get_secret_value())["password"]
    assert password not in told


def test_a_keyword_url_shows_no_password_when_the_server_is_away(settled: Tenant) -> None:
    away = {"DATABASE_URL": "host=127.0.0.1 port=9 user=meteo password=s3%cret dbname=weatherdb"}
    told = tiers.sentence(tiers.run(settled, "export", extra=away), 3)
    assert "127.0.0.1:9 " in told
    assert "s3%cret" not in told


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (CONSUME, "BOOTSTRAP_SERVERS"),
        (("produce", "--source", "replay"), "BOOTSTRAP_SERVERS"),
        (CONSUME, "DATABASE_URL"),
        (("export",), "DATABASE_URL"),
        (("aggregate",), "DATABASE_URL"),
        (("reconcile",), "DATABASE_URL"),
        (("export",), "HDFS_URL"),
        (("aggregate", "--all"), "HDFS_URL"),
        (("reconcile",), "HDFS_URL"),
        (("reconcile",), "HBASE_HOST"),
    ],
    ids=lambda it: it if isinstance(it, str) else it[0],
)
def test_an_absent_server_is_one_sentence_within_30_seconds(
    settled: Tenant, command: tuple[str, ...], setting: str
) -> None:
    away = {
        "BOOTSTRAP_SERVERS": {"BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        "DATABASE_URL": other_url(settled, r":\d+/", ":1/"),
        "HDFS_URL": {"HDFS_URL": "http://127.0.0.1:1"},
        "HBASE_HOST": {"HBASE_PORT": "1"},
    }[setting]
    told = tiers.sentence(tiers.run(settled, *command, extra=away, timeout=30), 3)
    assert setting in told
    assert "127.0.0.1:1" in told


@pytest.mark.parametrize("without", [{"HBASE_PORT": "1"}, {"HBASE_ENABLED": "false"}], ids=["down", "off"])
def test_without_hbase_everything_else_goes_on_and_it_gets_later_what_it_is_owed(
    tenant: Tenant, without: dict[str, str]
) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    for command in (CONSUME, ("export",), ("aggregate",)):
        ran = tiers.run(tenant, *command, extra=without)
        assert ran.returncode == 0, ran.stderr
    assert ("HBase is owed its days" in ran.stdout) == ("HBASE_PORT" in without)
    assert tiers.read_aggregates(tenant).keys() == {DAY}
    owed = tiers.run(tenant, "reconcile")
    assert owed.returncode == 0
    assert "HBase is owed the aggregates" in owed.stdout
    assert "1 day into HBase" in tiers.run(tenant, "aggregate").stdout
    tiers.assert_whole(tenant, records)


@contextmanager
def full_file_system(tenant: Tenant) -> Iterator[None]:
    """Leave the tenant's directory no room for another block."""
    tiers.set_space_quota(tenant, 1 << 20)
    try:
        yield
    finally:
        tiers.set_space_quota(tenant, None)


def test_a_full_hdfs_is_one_sentence_and_the_export_goes_on_afterwards(tenant: Tenant) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    tiers.consume(tenant)
    tiers.export(tenant)
    records += tiers.publish(tenant, DAY, "2013-04-02")
    tiers.consume(tenant)
    with full_file_system(tenant):
        told = tiers.sentence(tiers.run(tenant, "export"), 3)
        assert "quota" in told
        assert "space" in told
        assert tiers.run(tenant, "reconcile").returncode == 0
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)


@contextmanager
def admin(tenant: Tenant) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=tenant.settings.bootstrap_servers.split(","))) as client:
        yield client


def test_a_topic_made_again_is_a_new_generation(tenant: Tenant) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    tiers.consume(tenant)
    tiers.export(tenant)
    name = tenant.settings.topic_name
    with admin(tenant) as client:
        client.delete_topics([name])
        tiers.eventually("the end of the topic", lambda: name not in client.list_topics())
        client.create_topics([NewTopic(name, PARTITIONS, 1)])
        tiers.eventually("the topic", lambda: name in client.list_topics())
    records += tiers.publish(tenant, DAY, DAY)
    ran = tiers.run(tenant, *CONSUME)
    assert ran.returncode == 0
    assert "the topic was made again: a new generation begins" in ran.stderr
    tiers.export(tenant)
    tiers.aggregate(tenant)
    files = {file for _, file, _ in tiers.read_lines(tenant)}
    assert {file.startswith("weather_g2_p") for file in files} == {True, False}
    tiers.assert_whole(tenant, records)
    assert sum(json.loads(line)["observations"] for line in tiers.read_aggregates(tenant)[DAY].splitlines()) == 3 * 24


def test_what_kafka_deleted_before_it_was_taken_is_a_gap(tenant: Tenant) -> None:
    tiers.send(tenant, [message()] * 5)
    tiers.consume(tenant)
    tiers.send(tenant, [message()] * 7)
    with admin(tenant) as client:
        client.delete_records({TopicPartition(tenant.settings.topic_name, 0): 9})
    ran = tiers.run(tenant, *CONSUME)
    assert ran.returncode == 0
    assert '"lost": 4' in ran.stderr
    assert tenant.query("SELECT partition, from_offset, to_offset FROM gaps") == [(0, 5, 9)]
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, 8)


def test_a_position_above_the_logs_end_stops_the_consumer(tenant: Tenant) -> None:
    tiers.send(tenant, [message()] * 3)
    tiers.consume(tenant)
    tenant.query("UPDATE positions SET next_offset = 100 WHERE partition = 0")
    for command in (CONSUME, ("consume",)):
        ran = tiers.run(tenant, *command)
        ran.stderr = ran.stderr.splitlines()[-1]  # a service tells more than why it ends
        told = tiers.sentence(ran, 1)
        assert "partition 0 is 100, the log ends at 3" in told
    assert tenant.query("SELECT count(*) FROM weather") == [(3,)]


def transactions(tenant: Tenant, *ends: Callable[[KafkaProducer], None]) -> None:
    """Send a message in a transaction for each of the given ends."""
    with closing(
        KafkaProducer(bootstrap_servers=tenant.settings.bootstrap_servers.split(","), transactional_id="test")
    ) as producer:
        producer.init_transactions()
        for end in ends:
            producer.begin_transaction()
            producer.send(tenant.settings.topic_name, value=message(), partition=0).get(30)
            end(producer)


def test_transactions_leave_control_records_and_aborted_ones_no_row(tenant: Tenant) -> None:
    commit, abort = KafkaProducer.commit_transaction, KafkaProducer.abort_transaction
    transactions(tenant, commit, abort, abort, commit, abort)
    ran = tiers.run(tenant, *CONSUME)
    assert ran.returncode == 0, ran.stderr
    # 5 records and 5 markers, of which the 3 aborted records are none.
    assert tenant.query("SELECT next_offset, control_records FROM positions WHERE partition = 0") == [(10, 8)]
    tiers.send(tenant, [message()])
    assert tiers.run(tenant, *CONSUME).returncode == 0
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, 3)
