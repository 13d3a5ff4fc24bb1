"""The steps of ansible/backup.yml and ansible/restore.yml that need the platform's own code.

`./meteo exec python -m meteo_cli.backup_steps STEP` runs one where the servers can be reached, in both runtimes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import date
from typing import Any

from meteo_common.console import run_command
from meteo_common.errors import MismatchError, UsageError
from meteo_common.logs import configure_logs
from meteo_common.settings import Settings, load_settings
from meteo_consumer.topic import TopicInfo, describe_topic, log_bounds, open_consumer
from meteo_hadoop.archive import ArchiveReader
from meteo_hadoop.backup import has_data, owe_hbase, take
from meteo_hadoop.manifest import Days, Manifest
from meteo_hadoop.webhdfs import FileSystem

ANNOUNCED = "cut: "
"""Before the line of JSON, on standard error, that says what was taken: standard output is the archive."""
_ALL = "restore all of it (-e restore_only=)"


def take_step(settings: Settings) -> None:
    """Write the archive of HDFS to standard output, and keep PostgreSQL's snapshot until standard input ends."""

    def announce(facts: dict[str, Any]) -> None:
        print(f"{ANNOUNCED}{json.dumps(facts)}", file=sys.stderr, flush=True)  # noqa: T201

    take(settings, sys.stdout.buffer, announce, sys.stdin.buffer.read)


def state_step(settings: Settings) -> None:
    """Print what holds data, as JSON."""
    print(json.dumps(has_data(settings)))  # noqa: T201


def put_step(settings: Settings) -> None:
    """Put the archive at standard input into HDFS, in place of what is there."""
    print(f"{ArchiveReader(settings).put(sys.stdin.buffer)} files")  # noqa: T201


def catch_up_step(settings: Settings) -> None:
    """Refuse a backup whose facts are at standard input, when Kafka cannot bring PostgreSQL from it up to HDFS."""
    facts = json.load(sys.stdin)
    days = Days(FileSystem(settings), settings.hdfs_base_path)
    listed = days.listed()
    if gone := sorted(set(map(date.fromisoformat, facts["day_list"])) - set(listed)):
        raise MismatchError(
            f"HDFS does not have {gone[0]} ({len(gone)} such), which the backup has: it expired, or was lost; {_ALL}."
        )
    ahead = rows_ahead([manifest for day in listed if (manifest := days.read(day))], facts["positions"])
    if not ahead:
        return
    topic = describe_topic(settings)
    with closing(open_consumer(settings, None)) as consumer:
        starts, _ = log_bounds(consumer, topic, topic.partitions)
    if reason := unreadable(ahead, facts["positions"], topic, starts):
        raise MismatchError(f"{reason}: PostgreSQL alone could not be brought up to HDFS; {_ALL}.")


def rows_ahead(manifests: Iterable[Manifest], positions: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], int]:
    """Return the offset up to which HDFS has a partition, by (topic generation, partition), where that is further."""
    taken = {(each["generation"], each["partition"]): each["next_offset"] for each in positions}
    ends: dict[tuple[int, int], int] = {}
    for manifest in manifests:
        for segment in (segment for segments in manifest.files.values() for segment in segments):
            key = (segment.topic_generation, segment.partition)
            ends[key] = max(ends.get(key, 0), segment.to_offset)
    return {key: end for key, end in ends.items() if end > taken.get(key, 0)}


def unreadable(
    ahead: Mapping[tuple[int, int], int],
    positions: Iterable[Mapping[str, Any]],
    topic: TopicInfo,
    starts: Mapping[int, int],
) -> str | None:
    """Return why Kafka no longer has the records between the backup and HDFS; None when it has them all."""
    known = {each["generation"]: each["topic_id"] for each in positions}
    taken = {(each["generation"], each["partition"]): each["next_offset"] for each in positions}
    for generation, partition in ahead:
        # A generation is known by the topic's id. One that began after the backup could be any.
        if known.get(generation) != str(topic.topic_id):
            return f"HDFS has records of a topic {topic.name} that was deleted or made after the backup"
        wanted = taken.get((generation, partition), 0)
        if starts.get(partition, 0) > wanted:
            return (
                f"Kafka has partition {partition} of {topic.name} only from offset {starts[partition]} on, the backup"
                f" ends at {wanted}"
            )
    return None


STEPS: dict[str, Callable[[Settings], None]] = {
    "take": take_step,
    "state": state_step,
    "put": put_step,
    "catch-up": catch_up_step,
    "owe-hbase": owe_hbase,
}


def main() -> None:
    """Run the step that the first argument names."""
    step = sys.argv[1] if len(sys.argv) > 1 else ""

    def run() -> None:
        if step not in STEPS:
            raise UsageError(f"There is no step '{step}'; there are {', '.join(STEPS)}.")
        configure_logs("backup", long_running=False)
        STEPS[step](load_settings())

    run_command(run)


if __name__ == "__main__":
    main()
