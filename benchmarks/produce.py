"""Simulation → Kafka: one producing process against kafka-python sending the same bytes; the services' memory."""

from __future__ import annotations

import math
import subprocess
import time
from datetime import date, timedelta
from typing import Any

from kafka import TopicPartition

from benchmarks.consuming import METEO, consume_as_service
from benchmarks.measuring import Measured, Options, ratio, take_turns
from benchmarks.processes import Accounts, Memory, find
from benchmarks.servers import PARTITIONS, Servers, environment
from meteo_common.errors import TerminalError
from meteo_common.settings import Settings
from meteo_consumer.topic import open_consumer
from meteo_producer.delivery import Delivery
from meteo_producer.produce import CHUNK
from meteo_producer.simulation import SimulatedDays
from meteo_producer.source import Selection

MESSAGES = 300_000
MEMORY_MESSAGES = 1_000_000
CITIES = ";".join(f"Bench{number},FR@{40 + number},{number}" for number in range(10))
EVERY_SECONDS = 60
FIRST = date(2026, 1, 1)
A_DAY = 10 * 86400 // EVERY_SECONDS
PATIENCE_SECONDS = 600.0


def measure(options: Options) -> Measured:
    """Measure rates (messages/s) run by run, and once the memory of both services over a million messages."""
    with Servers() as servers:
        days = math.ceil((options.messages or MESSAGES) / A_DAY)
        recording = SimulatedDays(_simulated(servers.settings), _selection(days))
        ready = list(recording.records())
        accounts = Accounts({"kafka": find("kafka.Kafka", str(servers.directory))})

        def counted(arm: Any) -> dict[str, float]:
            used: dict[str, float] = {}
            with accounts.counting(used):
                figures = arm(servers.make_topic())
            return {**figures, **used}

        arms = {
            "client": lambda: counted(lambda settings: _send_ready(settings, ready)),
            "producer": lambda: counted(lambda settings: _produce(settings, days, len(ready))),
        }
        runs = take_turns(arms, options.runs)
        measured = Measured(runs, notes=servers.facts() | {"messages": len(ready)})
        measured.notes["message_bytes"] = sum(len(value) for _, value in ready) // len(ready)
        measured.notes["memory"] = _memory(servers, math.ceil((options.messages or MEMORY_MESSAGES) / A_DAY))
    figure = "messages_per_second"
    measured.ratios["ratio_to_client"] = ratio(runs, ("producer", figure), ("client", figure))
    measured.ratios["ratio_to_client_steady"] = ratio(runs, ("producer", f"steady_{figure}"), ("client", figure))
    return measured


def _send_ready(settings: Settings, ready: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """Send bytes with the platform's own settings of the client, and wait for all acknowledgements."""
    producer = Delivery(settings)._open()
    producer.partitions_for(settings.topic_name)
    started = time.monotonic()
    for number, (key, value) in enumerate(ready, start=1):
        producer.send(settings.topic_name, key=key, value=value)
        if number % CHUNK == 0:
            producer.flush()
    producer.flush()
    seconds = time.monotonic() - started
    producer.close()
    _check(settings, len(ready))
    return {"messages_per_second": len(ready) / seconds}


def _produce(settings: Settings, days: int, number: int) -> dict[str, float]:
    """Run `meteo produce --source simulation`; the rate is from the process's start to its end.

    `steady_…` leaves out the time until the log has its first message.
    """
    selection = _selection(days)
    command = [
        str(METEO),
        "produce",
        "--source",
        "simulation",
        "--from",
        str(selection.first),
        "--to",
        str(selection.last),
    ]
    consumer = open_consumer(settings, group=None)
    partitions = [TopicPartition(settings.topic_name, partition) for partition in range(PARTITIONS)]
    started = time.monotonic()
    running = subprocess.Popen(
        command, env=_environment(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    memory = Memory(running.pid)
    while not any(consumer.end_offsets(partitions).values()) and running.poll() is None:
        time.sleep(0.02)
    first = time.monotonic()
    output, _ = running.communicate(timeout=PATIENCE_SECONDS)
    ended = time.monotonic()
    consumer.close()
    if running.returncode:
        raise TerminalError(f"meteo produce failed: {output.strip()[-300:]}")
    _check(settings, number)
    return {
        "messages_per_second": number / (ended - started),
        "steady_messages_per_second": number / (ended - first),
        "first_message_after_seconds": first - started,
        "memory_peak_mib": memory.peak,
        "memory_at_quarter_mib": memory.at(0.25),
        "memory_at_end_mib": memory.at(1.0),
    }


def _memory(servers: Servers, days: int) -> dict[str, Any]:
    """Return the memory in MiB of a producer and then a consumer over many messages, at a quarter and at the end."""
    settings = servers.make_topic()
    number = len(SimulatedDays(_simulated(settings), _selection(days)))
    told: dict[str, Any] = {"messages": number}
    made = servers.make_database(settings)
    for name, figures in (
        ("producer", _produce(settings, days, number)),
        ("consumer", consume_as_service(made, number, 1)),
    ):
        told[name] = {figure: round(value, 1) for figure, value in figures.items() if figure.startswith("memory")}
    return told


def _check(settings: Settings, number: int) -> None:
    consumer = open_consumer(settings, group=None)
    ends = consumer.end_offsets([TopicPartition(settings.topic_name, partition) for partition in range(PARTITIONS)])
    consumer.close()
    if sum(ends.values()) != number:
        raise TerminalError(f"The topic holds {sum(ends.values())} messages, expected {number}.")


def _selection(days: int) -> Selection:
    return Selection(FIRST, FIRST + timedelta(days=days - 1))


def _simulated(settings: Settings) -> Settings:
    return settings.model_copy(update={"city": CITIES, "produce_every": float(EVERY_SECONDS)})


def _environment(settings: Settings) -> dict[str, str]:
    return {**environment(settings), "CITY": CITIES, "PRODUCE_EVERY": f"{EVERY_SECONDS}s"}
