"""The newest days' aggregates, as they lie in HDFS."""

from __future__ import annotations

import json
from typing import Any

from meteo_common.settings import Settings
from meteo_hadoop.manifest import AGGREGATES, Days
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import FileSystem


def newest_aggregates(settings: Settings, days: int) -> list[dict[str, Any]]:
    """Return the aggregates of the last `days` days that have some, by day and station."""
    filesystem = FileSystem(settings)
    partitions = Days(filesystem, settings.hdfs_base_path)
    found: list[list[dict[str, Any]]] = []
    for day in sorted(partitions.listed(), reverse=True):
        try:
            content = filesystem.read(partitions.path(day, AGGREGATES))
        except FileVanishedError:
            continue
        found.append([json.loads(line) for line in content.splitlines()])
        if len(found) == days:
            break
    return [row for rows in reversed(found) for row in rows]
