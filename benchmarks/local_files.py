"""Days' files of this machine, as an engine reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meteo_hadoop.source import CHUNK


@dataclass(frozen=True)
class LocalFiles:
    """Opens files of this machine, as `meteo_hadoop.source.Source` opens those of HDFS."""

    def open(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        with Path(path).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk
