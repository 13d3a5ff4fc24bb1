"""What an export refuses before it touches HDFS."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from meteo_common.errors import MismatchError
from meteo_hadoop.export import is_published, refuse_overlap
from meteo_hadoop.manifest import Manifest, Segment
from meteo_hadoop.plans import PlannedFile

DAY = date(2013, 3, 31)
NOON = datetime(2013, 3, 31, 12, tzinfo=UTC)
PLANNED = PlannedFile(1, 1, 0, 100, 200, DAY, 5, NOON, NOON)


def manifest(first: int, end: int, partition: int = 0, generation: int = 1) -> Manifest:
    segment = Segment(partition, first, end, rows=5, bytes=5, sha256="", topic_generation=generation)
    name = replace(PLANNED, topic_generation=generation, partition=partition, from_offset=first, to_offset=end).name
    return Manifest(DAY, "Europe/Paris", {name: [segment]})


@pytest.mark.parametrize(("first", "end"), [(50, 101), (150, 160), (199, 300), (0, 500), (100, 150)])
def test_files_that_share_records_are_refused(first: int, end: int) -> None:
    with pytest.raises(MismatchError, match=f"overlaps weather_p0_{first}-{end}.json"):
        refuse_overlap(manifest(first, end), PLANNED)


@pytest.mark.parametrize(
    "there",
    [manifest(0, 100), manifest(200, 300), manifest(50, 150, partition=1), manifest(50, 150, 0, 2)],
    ids=["before", "after", "other partition", "other generation"],
)
def test_neighbours_are_fine(there: Manifest) -> None:
    refuse_overlap(there, PLANNED)


def test_what_the_manifest_has_already_is_not_written_again() -> None:
    assert is_published(manifest(100, 200), PLANNED)
    assert not is_published(manifest(100, 201), PLANNED)
    with pytest.raises(MismatchError, match="holds 5 rows, PostgreSQL has 6"):
        is_published(manifest(100, 200), replace(PLANNED, rows=6))
