"""The recorded answers of the test folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from meteo_common.errors import RefusedError
from meteo_common.places import Place
from meteo_producer.source import Answers, Source, checked

FOLDER = Path(__file__).parent / "recorded"
PARIS = Place("Paris", "FR", 48.853, 2.349)
NOW = datetime(2026, 11, 20, 12, 0, 3, tzinfo=UTC)


def names(source: str, prefix: str = "", folder: Path = FOLDER) -> list[str]:
    """Return the names of the recorded answers of a source that begin with `prefix`."""
    files = (folder / source).glob(f"{prefix}*.json")
    return sorted(file.name.removesuffix(".json") for file in files if not file.name.endswith(".http.json"))


def load(source: str, name: str, folder: Path = FOLDER) -> Any:
    """Return one recorded answer, parsed."""
    return msgspec.json.decode((folder / source / f"{name}.json").read_bytes())


def asked_units(source: str, name: str) -> str | None:
    """Return the `units` of the recorded request; the provider's default when it named none; None when not recorded."""
    file = FOLDER / source / f"{name}.http.json"
    if not file.exists():
        return None
    query = parse_qs(urlsplit(msgspec.json.decode(file.read_bytes())["request_uri"]).query)
    return query.get("units", ["standard"])[0]


def answers(bodies: dict[str, Any], units: str | None = None, place: Place = PARIS) -> Answers:
    """Return answers collected at NOW."""
    return Answers(place, NOW, bodies, units)


def understood(source: Source, folder: str, below: Path = FOLDER) -> list[Any]:
    """Return the recorded answers of a folder that become a valid message; the others are refused with a reason."""
    bodies = []
    for name in names(folder, folder=below):
        body = load(folder, name, below)
        try:
            checked(source.normalise(answers({"current": body})))
        except RefusedError as refusal:
            assert str(refusal), name  # noqa: PT017 - a message is as good
        else:
            bodies.append(body)
    return bodies
