"""Named places where a test may kill the process as a power cut would.

`METEO_FAILPOINT=export.after_rename:3` kills (-9) at the third time that place is reached. Unset, a failpoint is
one comparison. The names in use are in `FAILPOINTS`, so that the fault tests can go through all of them.
"""

from __future__ import annotations

import os
import signal

FAILPOINTS = (
    "producer.after_answer",
    "producer.after_outbox",
    "producer.before_send",
    "producer.after_send",
    "producer.after_ack",
    "backfill.after_fetch",
    "backfill.after_send",
    "backfill.after_mark",
    "consumer.before_copy",
    "consumer.before_commit",
    "consumer.after_commit",
    "export.before_plan_commit",
    "export.after_plan_commit",
    "export.before_write",
    "export.after_write",
    "export.after_rename",
    "export.before_manifest",
    "export.after_manifest",
    "export.after_day",
    "compact.before_concat",
    "compact.after_concat",
    "compact.after_manifest",
    "parquet.before_write",
    "parquet.after_write",
    "expire.after_note",
    "expire.after_hbase",
    "expire.after_delete",
    "rebuild.after_forget",
    "rebuild.after_manifest",
    "aggregate.before_compute",
    "aggregate.after_compute",
    "aggregate.after_generation",
    "aggregate.after_rename",
    "aggregate.after_manifest",
    "aggregate.after_publish",
    "hbase.after_delete",
    "hbase.after_put",
    "hbase.before_bookkeeping",
    "replay.before_send",
    "replay.after_acknowledgement",
    "retention.before_commit",
)

_name, _, _count = os.environ.get("METEO_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Die here, by SIGKILL, if the environment says so."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
