"""An hour of the service, whatever answers: it goes on asking, and never in a tight loop."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from recordings import FOLDER

from conftest import TenantMaker
from meteo_common.errors import TransientError, UnreachableError
from meteo_common.message import Message
from meteo_common.places import Place
from meteo_common.schedule import run_every
from meteo_common.service import Service
from meteo_common.settings import Settings
from meteo_producer import api as api_module
from meteo_producer import poll as poll_module
from meteo_producer import rounds as rounds_module
from meteo_producer.accounts import Accounts
from meteo_producer.api import Api
from meteo_producer.coordinates import Coordinates
from meteo_producer.delivery import Delivery
from meteo_producer.intervals import interval_of
from meteo_producer.outbox import Outbox
from meteo_producer.poll import Poll
from meteo_producer.produce import open_sources
from meteo_producer.raw_responses import RawResponses
from meteo_producer.replay import Replay
from meteo_producer.rounds import Rounds
from meteo_producer.source import FEEDS, Answers, Selection
from meteo_producer.state import State

PLACES = 3
GOOD = (FOLDER / "openweather" / "owm_current__MagicMirrorOrg__weather-owm-current__0-cfc28.json").read_bytes()
CITY = ";".join(f"Place{number},FR@{number}.5,2.5" for number in range(PLACES))
PAST = format_datetime(datetime.now(UTC) - timedelta(days=20), usegmt=True)


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def later(minutes: int) -> str:
    """Return the date of then: seen from when it answers, not from when this file was read."""
    return format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)


def cod(value: str) -> bytes:
    return http(200, b'{"cod": ' + value.encode() + b', "message": "no"}')


class Server:
    """Answers every connection with the same bytes, and counts them."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.asked = 0
        self.at: list[float] = []
        self.clock: Callable[[], float] = time.monotonic
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.closed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.closed.set()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.asked += 1
            self.at.append(self.clock())
            threading.Thread(target=self._reply, args=(connection,), daemon=True).start()

    def _reply(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(5)
            connection.recv(65536)
            self._answer(connection)
            connection.close()
        except OSError:
            pass


def sending(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dripping(head: bytes) -> Callable[[socket.socket], None]:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(40):
            connection.sendall(b" ")
            time.sleep(0.05)

    return drip


class Hour(Service):
    """A service whose waiting takes no time, for an hour."""

    def __init__(self) -> None:
        super().__init__("producer", None)
        self.now = 0.0

    def wait(self, seconds: float) -> None:
        # A cycle that came round at once would never end the hour.
        self.now += max(seconds, 0.001)
        if self.now >= 3600:
            self.stopping.set()


@pytest.fixture(scope="module")
def topic(make_tenant: TenantMaker) -> Settings:
    return make_tenant().settings


@pytest.fixture
def signals_as_they_were() -> Iterator[None]:
    import signal

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


# What answers; how often one place is asked at least, and at most, within the hour at an interval of 10 minutes.
ANSWERS = {
    "good": (sending(http(200, GOOD)), 6, 7),
    "broken JSON": (sending(http(200, GOOD[:100] + b"Unexpected error while streaming data")), 8, 14),
    "empty body": (sending(http(200)), 8, 14),
    "a list": (sending(http(200, b"[1]")), 4, 14),
    "500": (sending(http(500)), 8, 14),
    "503 with Retry-After: 0": (sending(http(503, Retry_After="0")), 8, 14),
    "no answer": (lambda _: time.sleep(0.5), 8, 14),
    "reset": (reset, 8, 14),
    "nothing, closed": (lambda _: None, 8, 14),
    "dripping body": (dripping(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n"), 8, 14),
    # The poll's patience ends it, not the request's own limit: there may be no time left for a second try.
    "dripping head": (dripping(b"HTTP/1.1 200 X\r\nX: "), 4, 14),
    "429": (sending(http(429)), 1, 10),
    "429, Retry-After: 0": (sending(http(429, Retry_After="0")), 1, 10),
    "429, Retry-After: -3": (sending(http(429, Retry_After="-3")), 1, 10),
    "429, Retry-After: 1": (sending(http(429, Retry_After="1")), 4, 14),
    "429, Retry-After in the past": (sending(http(429, Retry_After=PAST)), 1, 10),
    "429, Retry-After: a billion": (sending(http(429, Retry_After="1000000000")), 0.3, 0.4),
    "429, Retry-After in 20 minutes": (lambda connection: connection.sendall(http(429, Retry_After=later(20))), 0.9, 2),
    "401": (sending(http(401, b'{"cod": 401, "message": "Invalid API key"}')), 0.3, 0.4),
    "403": (sending(http(403)), 0.3, 0.4),
    "404": (sending(http(404, b'{"cod": "404", "message": "city not found"}')), 3, 9),
    "400": (sending(http(400, b'{"cod": "400", "message": "Nothing to geocode"}')), 3, 9),
    "302": (sending(http(302, Location="/")), 3, 9),
    "cod 404": (sending(cod('"404"')), 3, 9),
    "cod 401": (sending(cod("401")), 0.3, 0.4),
    "cod 429": (sending(cod("429.0")), 1, 10),
    "cod 500": (sending(cod('"500"')), 8, 14),
    "cod 0": (sending(cod("0")), 3, 9),
    "error": (sending(http(200, b'{"error": true, "reason": "The service is overloaded"}')), 3, 14),
}


NEVER_WHOLE = {"no answer", "dripping body", "dripping head"}
"""Answers that are given up; of the others a slow one on a busy machine must not count as one of these."""


@pytest.mark.stack
@pytest.mark.usefixtures("signals_as_they_were")
@pytest.mark.parametrize("name", ANSWERS)
def test_an_hour_of(topic: Settings, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, least, most = ANSWERS[name]
    if name in NEVER_WHOLE:
        monkeypatch.setattr(api_module, "TIMEOUT", (0.3, 0.3))
        monkeypatch.setattr(api_module, "ANSWER_SECONDS", 0.3)
        monkeypatch.setattr(poll_module, "PATIENCE", 0.8)
    server, service, state = Server(answer), Hour(), State()
    own = {"openweather_url": server.url, "openweather_api_key": SecretStr("k" * 32)}
    settings = topic.model_copy(update={"city": CITY, "produce_every": 600, **own})
    start = time.time()
    accounts = Accounts(settings, state, lambda: start + service.now)
    server.clock = lambda: service.now
    api = Api(accounts)
    outbox = Outbox(state, settings.topic_name)
    sources = open_sources(settings, "openweather", api)
    poll = Poll(sources, Coordinates(settings, api), outbox, 3600, ("current",), clock=lambda: service.now)
    intervals = {source.name: interval_of(source, settings, accounts, FEEDS) for source in sources}
    # The clock of due times runs on through a round by its place in it, as a real one does.
    rounds = Rounds(settings, poll, outbox, intervals, service, lambda: service.now)
    try:
        run_every(service, 600, rounds.run)
    finally:
        rounds.close()
        server.close()
    assert least * PLACES <= server.asked <= most * PLACES, server.at
    # Never more than the places at once, nor a place again within 20 s.
    for begin in server.at:
        assert sum(begin <= at < begin + 20 for at in server.at) <= PLACES
    if name == "good":
        assert len(outbox) == 0
    else:
        assert outbox.pending() == []


@pytest.mark.usefixtures("signals_as_they_were")
def test_an_outbox_full_of_refused_answers_empties_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "LIMIT", 3)
    stored: list[str] = []
    # PostgreSQL, which was away, is back; Kafka is not.
    monkeypatch.setattr(RawResponses, "store", lambda *refused: stored.append(refused[-1]))
    settings = Settings.model_validate({"bootstrap_servers": "127.0.0.1:9", "city": CITY, "meteo_state_dir": tmp_path})
    outbox, api = Outbox(State(), settings.topic_name), Api()
    for number in range(3):
        outbox.put_refused("simulation", Answers(settings.places[0], datetime.now(UTC), {}), str(number))
    poll = Poll(open_sources(settings, "simulation", api), Coordinates(settings, api), outbox, 3600)
    rounds = Rounds(settings, poll, outbox, {"simulation": 600.0}, Hour())
    with pytest.raises(TransientError, match="3 messages wait in the outbox"):
        rounds.run()
    assert (stored, len(outbox)) == (["0", "1", "2"], 0)
    with pytest.raises(UnreachableError, match="Kafka"):
        rounds.run()
    assert len(outbox) == PLACES


class Answering:
    """Polls that answer, but for the places that fail."""

    def __init__(self) -> None:
        self.failing: set[Place] = set()
        self.asked: list[Place] = []

    def ask(self, place: Place, *, again: bool) -> Message:  # noqa: ARG002 - as Poll
        self.asked.append(place)
        if place in self.failing:
            raise UnreachableError("away")
        return next(iter(Replay(Settings(), Selection())))


@pytest.mark.usefixtures("signals_as_they_were")
def test_each_place_is_asked_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "connect", lambda _: None)
    settings = Settings.model_validate({"city": CITY, "meteo_state_dir": tmp_path})
    poll, service = Answering(), Hour()
    outbox = Outbox(State(), settings.topic_name)
    rounds = Rounds(settings, poll, outbox, {"replay": 600.0}, service, lambda: service.now)  # type: ignore[arg-type]
    first, *others = settings.places
    poll.failing = {first}
    with pytest.raises(TransientError) as caught:
        rounds.run()
    assert 24 <= (caught.value.retry_after or 0) <= 30
    poll.failing.clear()
    service.now, poll.asked = 30.0, []
    # It is well again, and the others do not wait until a whole interval after that.
    assert (rounds.run(), poll.asked) == (570.0, [first])
    service.now, poll.asked = 600.0, []
    assert (rounds.run(), poll.asked) == (30.0, others)
