"""What a reconciliation has counted: of partitions, of days, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from meteo_common.console import numbered


@dataclass(frozen=True)
class PartitionCount:
    """Where the records of one partition are, from its first position to the cut."""

    topic: str
    topic_generation: int
    partition: int
    records: int
    rows: int
    dead_letters: int
    gaps: int
    control_records: int

    @property
    def difference(self) -> int:
        """Records minus what became of them; 0 when all are accounted for."""
        return self.records - self.rows - self.dead_letters - self.gaps - self.control_records


@dataclass
class DayCount:
    """What the tiers hold of one day."""

    day: date
    rows_in_postgresql: int = 0
    rows_in_manifest: int = 0
    rows_in_hdfs: int = 0
    observations_in_hdfs: int = 0
    observations_aggregated: int = 0
    expired_rows: int = 0
    pending: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`clean`, `pending`, `expired` or `mismatch`."""
        if self.mismatches or self.pending:
            return "mismatch" if self.mismatches else "pending"
        return "expired" if self.expired_rows and not self.rows_in_manifest else "clean"


@dataclass
class Report:
    """The outcome; `mismatches` names tier, day or partition, and numbers."""

    partitions: list[PartitionCount]
    days: list[DayCount]
    other_mismatches: list[str] = field(default_factory=list)
    hbase: bool = True
    looked_at: int = 0
    """Days that were read; the others are as they were found before."""

    @property
    def mismatches(self) -> list[str]:
        """Every mismatch, a sentence each."""
        found = [
            f"Kafka → PostgreSQL, partition {count.partition}: {count.records} records, {count.difference} of them"
            " neither row, dead letter, gap nor control record"
            for count in self.partitions
            if count.difference
        ]
        found += [f"day {count.day}: {text}" for count in self.days for text in count.mismatches]
        return found + self.other_mismatches

    def facts(self) -> dict[str, Any]:
        """Return the report as plain data."""
        days = [{**asdict(count), "day": count.day.isoformat(), "state": count.state} for count in self.days]
        partitions = [asdict(count) for count in self.partitions]
        return {"clean": not self.mismatches, "partitions": partitions, "days": days, "mismatches": self.mismatches}

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        for count in self.partitions:
            yield (
                f"{count.topic} {count.topic_generation}/{count.partition}: {count.records} records ="
                f" {count.rows} rows + {count.dead_letters} dead letters + {count.gaps} in gaps"
                f" + {count.control_records} control records{'' if not count.difference else '  MISMATCH'}"
            )
        states = Counter(count.state for count in self.days)
        expired = f" {states['expired']} expired," if states["expired"] else ""
        yield (
            f"{numbered(len(self.days), 'day')}: {states['clean']} clean, {states['pending']} pending,{expired}"
            f" {states['mismatch']} mismatches; {sum(count.rows_in_hdfs for count in self.days)} rows in HDFS,"
            f" {sum(count.observations_aggregated for count in self.days)} observations"
        )
        if not self.hbase:
            yield "HBase is switched off (HBASE_ENABLED) and was not compared"
        for day in self.days:
            if day.pending and not day.mismatches:
                yield f"  pending {day.day}: {'; '.join(day.pending)}"
        for text in self.mismatches:
            yield f"  MISMATCH {text}"
