"""The messages: recorded answers as the sources normalise them, with place, time and values varied by a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer

from benchmarks.servers import PARTITIONS
from meteo_common.message import Message, encode
from meteo_common.places import Place
from meteo_common.settings import Settings, load_settings, project_root
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather
from meteo_producer.source import Answers

SEED = 20131
STATIONS = 300
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=10)
COPY_ROWS = 10_000
"""Rows of a COPY and its transaction, as in the consumer's full batches."""
COPY = "COPY weather (date_time, msg_offset, partition, topic_generation, value) FROM STDIN (FORMAT binary)"
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END = b"\xff\xff"
_COPY_ROW = struct.Struct(">hiqiqiiiiiB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Made:
    """A record as it goes to Kafka, and where it will lie when it is the only traffic of its topic."""

    partition: int
    offset: int
    observed_at: datetime
    key: bytes
    value: bytes


def small_answers() -> tuple[Any, Answers]:
    """Return OpenWeather's source and an answer about the current weather alone; its message has 1.2 KB."""
    body = _recorded("openweather/owm_current__xSAVIKx__by-city-name__0-93b78")
    return OpenWeather(load_settings(), Api()), _answers({"current": body}, "metric")


def full_answers() -> tuple[Any, Answers]:
    """Return Open-Meteo's source and an answer with 5 days of forecast and air quality; its message has 12 KB."""
    bodies = {
        "current": _recorded("open-meteo/om_forecast__MagicMirrorOrg__weather-openmeteo-current__0-d84f3"),
        "air_pollution": _recorded("open-meteo/om_forecast__home-assistant__air-quality-current"),
    }
    return OpenMeteo(load_settings(), Api()), _answers(bodies, None)


def make(source: Any, answers: Answers, number: int, step: timedelta = STEP) -> list[Made]:
    """Return so many records: 300 stations polled in turn, every 10 minutes or `step`, each with values of its own."""
    chance = random.Random(SEED)  # noqa: S311
    message: Message = source.normalise(answers)
    current = answers.bodies["current"]
    measured = current.get("main") or current["current"]
    temperature = "temp" if "temp" in measured else "temperature_2m"
    prefix = f"{source.name}:"
    ends = [0] * PARTITIONS
    made = []
    for index in range(number):
        turn, station = divmod(index, STATIONS)
        partition = station % PARTITIONS
        message.station_id = f"{prefix}{3_000_000 + station}"
        message.observed_at = FIRST + turn * step + timedelta(seconds=station)
        message.collected_at = message.observed_at + timedelta(seconds=chance.randrange(1, 400))
        measured[temperature] = message.observation.temperature_celsius = round(chance.uniform(-20, 40), 2)
        message.observation.humidity_percent = chance.randrange(20, 100)
        message.observation.wind_speed_mps = round(chance.uniform(0, 20), 2)
        key = message.station_id.encode()
        made.append(Made(partition, ends[partition], message.observed_at, key, encode(message)))
        ends[partition] += 1
    return made


def fill(settings: Settings, records: Sequence[Made]) -> None:
    """Send the records to the topic, compressed as the platform's producer does."""
    producer = KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers.split(","),
        acks="all",
        compression_type="lz4",
        batch_size=256 * 1024,
        linger_ms=20,
        max_block_ms=60_000,
    )
    for number, record in enumerate(records, start=1):
        producer.send(settings.topic_name, key=record.key, value=record.value, partition=record.partition)
        if number % 20_000 == 0:
            producer.flush()
    producer.flush()
    producer.close()


def copy_forms(records: Sequence[Made]) -> list[bytes]:
    """Return the rows in the form of PostgreSQL's binary COPY, COPY_ROWS of one partition each."""
    forms = []
    for partition in range(PARTITIONS):
        own = [record for record in records if record.partition == partition]
        batches = [own[start : start + COPY_ROWS] for start in range(0, len(own), COPY_ROWS)]
        forms += [b"".join([_COPY_HEAD, *_copy_rows(batch), _COPY_END]) for batch in batches]
    return forms


def _copy_rows(records: Sequence[Made]) -> Iterator[bytes]:
    generation = 1
    for record in records:
        moment = (record.observed_at - _EPOCH) // timedelta(microseconds=1)
        length = len(record.value) + 1
        yield _COPY_ROW.pack(5, 8, moment, 8, record.offset, 4, record.partition, 4, generation, length, 1)
        yield record.value


def _answers(bodies: dict[str, Any], units: str | None) -> Answers:
    return Answers(Place("Paris", "FR", 48.853, 2.349), FIRST, bodies, units)


def _recorded(name: str) -> Any:
    folder: Path = project_root() / "producer" / "tests" / "recorded"
    return msgspec.json.decode((folder / f"{name}.json").read_bytes())
