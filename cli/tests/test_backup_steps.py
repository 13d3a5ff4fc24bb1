"""Whether Kafka can bring a PostgreSQL that was restored alone up to HDFS."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import pytest

from meteo_cli.backup_steps import rows_ahead, unreadable
from meteo_consumer.topic import TopicInfo
from meteo_hadoop.manifest import Manifest, Segment

OLD, NEW = UUID(int=1), UUID(int=2)
POSITIONS = [
    {"topic": "weather-api", "generation": 1, "topic_id": str(OLD), "partition": number, "next_offset": 100}
    for number in (0, 1)
]


def manifest(day: int, *segments: tuple[int, int, int, int]) -> Manifest:
    """Return a day with segments (topic generation, partition, from, to)."""
    held = [
        Segment(partition, first, end, end - first, 1, "", generation) for generation, partition, first, end in segments
    ]
    return Manifest(date(2013, 7, day), "Europe/Paris", {"file": held})


def test_only_what_hdfs_has_beyond_the_backup_is_ahead() -> None:
    behind = manifest(1, (1, 0, 0, 90), (1, 1, 0, 100))
    assert rows_ahead([behind], POSITIONS) == {}
    ahead = manifest(2, (1, 0, 90, 120), (1, 0, 120, 130), (2, 0, 0, 5))
    assert rows_ahead([behind, ahead], POSITIONS) == {(1, 0): 130, (2, 0): 5}


@pytest.mark.parametrize(
    ("ahead", "topic_id", "start", "says"),
    [
        ({(1, 0): 130}, OLD, 0, None),
        ({(1, 0): 130}, OLD, 100, None),
        (
            {(1, 0): 130},
            OLD,
            101,
            "Kafka has partition 0 of weather-api only from offset 101 on, the backup ends at 100",
        ),
        ({(1, 0): 130}, NEW, 0, "a topic weather-api that was deleted or made after the backup"),
        ({(2, 0): 5}, NEW, 0, "a topic weather-api that was deleted or made after the backup"),
        ({(1, 2): 5}, OLD, 0, None),  # a partition that was added since
        ({(1, 2): 5}, OLD, 1, "only from offset 1 on, the backup ends at 0"),
    ],
)
def test_kafka_must_have_all_of_it(
    ahead: dict[tuple[int, int], int], topic_id: UUID, start: int, says: str | None
) -> None:
    topic = TopicInfo("weather-api", topic_id, (0, 1, 2))
    reason = unreadable(ahead, POSITIONS, topic, dict.fromkeys(topic.partitions, start))
    assert (reason is None) if says is None else says in (reason or "")
