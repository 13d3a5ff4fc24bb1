"""A day's manifest is read by many threads at once."""

from __future__ import annotations

import subprocess
import sys

PROCESSES = 12
"""Of every two, one died where each thread built its own decoder."""
READERS = """
import sys
from threading import Barrier, Thread
from datetime import date

sys.setswitchinterval(1e-6)
from meteo_hadoop.manifest import Manifest, Segment, decode_manifest
import msgspec

manifest = Manifest(date(2013, 1, 1), "UTC", {"weather_p0": [Segment(0, 0, 1, 1, 1, "0" * 64)]})
text, together, read = msgspec.json.encode(manifest), Barrier(8), []


def reader():
    together.wait()
    read.append(decode_manifest(text))


threads = [Thread(target=reader) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert read == [manifest] * 8
"""


def test_threads_that_read_their_first_manifest_at_once_all_read_it() -> None:
    for _ in range(PROCESSES):
        ran = subprocess.run([sys.executable, "-c", READERS], capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr}"
