"""What becomes of a partition's records before a database is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from meteo_common.message import Message, Observation, encode
from meteo_consumer.batch import _headers, _instant, sort_records

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
GOOD = encode(
    Message(
        schema_version=1,
        normaliser_version=1,
        source="replay",
        data_origin="replay",
        station_id="replay:JFK",
        city="New York",
        observed_at=AT,
        collected_at=AT,
        observation=Observation(),
    )
)


@dataclass(frozen=True)
class Record:
    """As much of kafka-python's ConsumerRecord as is looked at."""

    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def test_each_record_is_a_row_or_a_dead_letter_in_the_order_of_offsets() -> None:
    records = [Record(10, GOOD), Record(11, b"rain"), Record(13, GOOD), Record(15, None)]
    batch = sort_records(2, before=9, after=17, records=records)
    assert [(instant, record.offset) for instant, record in batch.rows] == [(AT, 10), (AT, 13)]
    assert [(letter.record.offset, letter.reason[:8]) for letter in batch.dead_letters] == [
        (11, "not JSON"),
        (15, "the reco"),
    ]
    # 9, 12, 14 and 16 carried no record.
    assert batch.control_records == 4


def test_an_empty_range_is_all_control_records() -> None:
    assert sort_records(0, before=5, after=8, records=[]).control_records == 3


def test_headers_are_kept_as_far_as_they_are_text() -> None:
    assert _headers([("a", b"x"), ("a", None), ("b", b"\xff\x00")]) == '[["a","x"],["a",null],["b","\ufffd\ufffd"]]'


@pytest.mark.parametrize("milliseconds", [-1, 253_402_300_800_000, 2**63 - 1])
def test_a_timestamp_that_is_no_date_is_left_out(milliseconds: int) -> None:
    assert _instant(milliseconds) is None
    assert _instant(1_795_168_800_000) == AT
