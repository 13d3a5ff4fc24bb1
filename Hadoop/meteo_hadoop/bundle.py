"""What travels with a job to the nodes: our code, msgspec, the zones' rules, the job's name and parameters.

A node needs nothing but Python 3.11. Where msgspec's compiled part does not fit it, `rows_plain` takes its place, with
the same results.
"""

from __future__ import annotations

import importlib.util
import json
import zipfile
import zoneinfo
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from meteo_common.errors import UsageError
from meteo_hadoop.job import Job
from meteo_hadoop.streaming import PACKED_JOB, PACKED_ZONES

_MAIN = """import os, sys
from meteo_hadoop import failures
try:
    from meteo_hadoop.streaming import run_packed
    run_packed(os.path.dirname(os.path.abspath(__file__)), sys.argv[1])
except Exception as error:
    failures.tell(error)
    raise
"""


def pack(job: Job, target: Path) -> None:
    """Write the archive; unpacked into a folder F it runs as `python3 F mapper|combiner|reducer`."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("__main__.py", _MAIN)
        archive.writestr(PACKED_JOB, json.dumps({"name": job.name, "parameters": dict(job.parameters)}))
        for package in ("meteo_hadoop", "msgspec"):
            for file in _files(package):
                archive.write(file, f"{package}/{file.name}")
        for zone in job.zones:
            archive.writestr(f"{PACKED_ZONES}/{zone}", _rules(zone))


def _files(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return
    for file in sorted(Path(spec.origin).parent.iterdir()):
        if file.suffix in {".py", ".so"}:
            yield file


def _rules(zone: str) -> bytes:
    """Return the rules by which this process reckons: zoneinfo looks in the same places in the same order."""
    for folder in zoneinfo.TZPATH:
        if (file := Path(folder, zone)).is_file():
            return file.read_bytes()
    try:
        return (resources.files("tzdata") / "zoneinfo" / zone).read_bytes()
    except (ModuleNotFoundError, OSError):
        raise UsageError(f"The rules of the time zone {zone} are not on this machine; install tzdata.") from None
