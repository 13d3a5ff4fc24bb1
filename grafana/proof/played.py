"""Weather for the proof: the polls that a producer would have made in the last days, put into Kafka as it puts them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from kafka import KafkaProducer

from meteo_common.message import Message, encode
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.simulation import Simulation
from meteo_producer.source import Feed


def polls(settings: Settings, start: datetime, end: datetime, every: timedelta) -> Iterator[Message]:
    """Yield the messages of these polls, in the order of their time; each full hour's has a forecast and air quality.

    The simulation knows its future. So that forecasts err as real ones do, each step is moved by up to 0.9 °C for each
    day that it looks ahead.
    """
    source = Simulation(settings, Api())
    at = start
    while at < end:
        feeds: tuple[Feed, ...] = ("forecast", "air_quality") if at.minute == 0 else ()
        for place in settings.places:
            message = source.normalise(source.fetch(place, feeds, at))
            # So that nobody takes them for answers that have just come: they would count as two weeks late.
            message.data_origin = "replay"
            for step in message.forecast:
                days = (step.valid_at - at) / timedelta(days=1)
                if step.temperature_celsius is not None:
                    step.temperature_celsius += 0.9 * days * math.sin(step.valid_at.timestamp() / 17_000 + days)
            yield message
        at += every


def play(settings: Settings, start: datetime, end: datetime, every: timedelta = timedelta(minutes=20)) -> int:
    """Put the polls into the settings' topic; return how many messages they are."""
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers.split(","))
    count = 0
    for message in polls(settings, start, end, every):
        producer.send(settings.topic_name, key=message.station_id.encode(), value=encode(message))
        count += 1
    producer.flush()
    producer.close()
    return count
