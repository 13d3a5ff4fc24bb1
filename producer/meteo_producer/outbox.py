"""The outbox: what has still to reach Kafka or PostgreSQL lies on the disk, so that neither a kill, a stop nor a server
that is away for days loses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from meteo_common.errors import MeteoError
from meteo_common.places import Place
from meteo_producer.source import Answers
from meteo_producer.state import State

log = structlog.get_logger()

LIMIT = 100_000
"""Messages: 23 months of one place at the default interval, 1.5 GB with their answers. Then nothing more is asked."""
AT_ONCE = 1000
"""Messages read from the disk at a time: 15 MB."""


@dataclass(frozen=True)
class Entry:
    """A message that Kafka has not acknowledged."""

    id: int
    key: bytes
    value: bytes


class Outbox:
    """What waits for one topic, in the order of its coming; and refused answers, which wait for PostgreSQL."""

    _PUT = "INSERT INTO outbox (topic, key, value) VALUES (?, ?, ?)"
    _PENDING = "SELECT id, key, value FROM outbox WHERE topic = ? ORDER BY id LIMIT ?"
    _FORGET = "DELETE FROM outbox WHERE id = ?"
    _PUT_REFUSED = "INSERT INTO refused_answers (source, answers, reason) VALUES (?, ?, ?)"
    _NEXT_REFUSED = "SELECT id, source, answers, reason FROM refused_answers ORDER BY id LIMIT 1"
    _FORGET_REFUSED = "DELETE FROM refused_answers WHERE id = ?"
    _SIZE = "SELECT (SELECT count(*) FROM outbox WHERE topic = ?) + (SELECT count(*) FROM refused_answers)"

    def __init__(self, state: State, topic: str) -> None:
        self._state = state
        self._topic = topic

    def __len__(self) -> int:
        with self._state.transaction() as database:
            (size,) = database.execute(self._SIZE, (self._topic,)).fetchone()
        return int(size)

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a message; it is on the disk when this returns."""
        with self._state.transaction() as database:
            database.execute(self._PUT, (self._topic, key, value))

    def pending(self) -> list[Entry]:
        """Return the first messages, up to 1,000."""
        with self._state.transaction() as database:
            rows = database.execute(self._PENDING, (self._topic, AT_ONCE)).fetchall()
        return [Entry(*row) for row in rows]

    def forget(self, ids: Sequence[int]) -> None:
        """Delete messages that Kafka has acknowledged."""
        with self._state.transaction() as database:
            database.executemany(self._FORGET, [(each,) for each in ids])

    def put_refused(self, source: str, answers: Answers, reason: str) -> None:
        """Keep answers that could not become a message, until PostgreSQL has them; but for those that are no JSON of
        ours, being nested too deeply: the log alone says so."""
        try:
            written = _write(answers)
        except (RecursionError, ValueError) as error:
            log.error("answer cannot be kept", source=source, place=str(answers.place), reason=reason, error=str(error))
            return
        with self._state.transaction() as database:
            database.execute(self._PUT_REFUSED, (source, written, reason))

    def pass_on_refused(self, store: Callable[[str, Answers, str], None]) -> None:
        """Hand the refused answers to `store`, one by one; those that it cannot take now wait here."""
        while row := self._next_refused():
            number, source, answers, reason = row
            try:
                store(source, _read(answers), reason)
            except MeteoError as error:
                log.warning("refused answers wait in the outbox", error=str(error))
                return
            with self._state.transaction() as database:
                database.execute(self._FORGET_REFUSED, (number,))

    def _next_refused(self) -> tuple[int, str, bytes, str] | None:
        with self._state.transaction() as database:
            row: tuple[int, str, bytes, str] | None = database.execute(self._NEXT_REFUSED).fetchone()
        return row


def _write(answers: Answers) -> bytes:
    """Return the answers as ASCII JSON: half of a surrogate pair, one reason to refuse, has no UTF-8."""
    place = answers.place
    fields: dict[str, Any] = {
        "place": [place.name, place.country, place.latitude, place.longitude],
        "collected_at": answers.collected_at.isoformat(),
        "bodies": answers.bodies,
        "units": answers.units,
    }
    return json.dumps(fields).encode("ascii")


def _read(text: bytes) -> Answers:
    fields = json.loads(text)
    collected_at = datetime.fromisoformat(fields["collected_at"])
    return Answers(Place(*fields["place"]), collected_at, fields["bodies"], fields["units"])
