"""A day's manifest: which files it consists of, and which records are in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

import msgspec
from msgspec import Struct, field

from meteo_common.days import parse_day
from meteo_common.errors import MismatchError
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import FileSystem

NAME = "_manifest.json"
AGGREGATES = "aggregates.jsonl"


class Segment(Struct, omit_defaults=True):
    """Records of one partition from offset `from_offset` up to, not including, `to_offset`, as they lie in a file."""

    partition: int
    from_offset: int
    to_offset: int
    rows: int
    bytes: int
    sha256: str
    topic_generation: int = 1


class Manifest(Struct):
    """What a day's directory holds. `generation` is that of its aggregates, 0 before there are any."""

    day: date
    time_zone: str
    files: dict[str, list[Segment]] = field(default_factory=dict)
    first_observed_at: datetime | None = None
    last_observed_at: datetime | None = None
    generation: int = 0

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(segment.rows for segments in self.files.values() for segment in segments)

    def cover(self, first: datetime, last: datetime) -> None:
        """Widen the event times to include these."""
        self.first_observed_at = min(first, self.first_observed_at or first)
        self.last_observed_at = max(last, self.last_observed_at or last)


# Made while this module is imported, by one thread: of two that decode a Struct for the first time at once, one finds
# its fields' types half filled in, and msgspec 0.22 reads a null pointer (19 of 40 processes, switching every 1 µs).
decode_manifest = msgspec.json.Decoder(Manifest).decode
"""Text → Manifest; raises msgspec.DecodeError when it is none."""


class Days:
    """The day directories below HDFS_BASE_PATH."""

    def __init__(self, filesystem: FileSystem, base_path: str) -> None:
        self.filesystem = filesystem
        self.base_path = base_path

    def directory(self, day: date) -> str:
        """Return the day's directory."""
        return f"{self.base_path}/dt={day.isoformat()}"

    def path(self, day: date, name: str) -> str:
        """Return the path of a file of the day."""
        return f"{self.directory(day)}/{name}"

    def listed(self) -> list[date]:
        """Return the days that have a directory."""
        return [day for day in map(_day, self._partitions()) if day is not None]

    def foreign(self) -> list[str]:
        """Return the paths of directories that begin with `dt=` and are no day's."""
        return [f"{self.base_path}/{name}" for name in self._partitions() if _day(name) is None]

    def _partitions(self) -> list[str]:
        entries = self.filesystem.list(self.base_path)
        return [entry.name for entry in entries if entry.is_directory and entry.name.startswith("dt=")]

    def read(self, day: date) -> Manifest | None:
        """Return the day's manifest, None when it has none yet.

        Raises MismatchError when the file is not a manifest of this version.
        """
        path = self.path(day, NAME)
        try:
            return decode_manifest(self.filesystem.read(path))
        except FileVanishedError:
            return None
        except msgspec.DecodeError as error:
            raise MismatchError(f"{path} is not a manifest ({error}); restore it from a backup.") from None

    def write(self, manifest: Manifest) -> None:
        """Replace the day's manifest as a whole."""
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        self.filesystem.publish(self.path(manifest.day, NAME), [text + b"\n"])


def file_sizes(days: Days, manifests: Mapping[date, Manifest]) -> dict[str, int]:
    """Return path → bytes of all files that the days' manifests name."""
    return {
        days.path(day, name): sum(segment.bytes for segment in segments)
        for day, manifest in manifests.items()
        for name, segments in sorted(manifest.files.items())
    }


def _day(name: str) -> date | None:
    try:
        return parse_day(name.removeprefix("dt="))
    except ValueError:
        return None
