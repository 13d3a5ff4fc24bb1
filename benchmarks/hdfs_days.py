"""Days' files in the stack's HDFS, in a directory that is removed again; and the job that only passes lines on."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from benchmarks.days import ZONE
from benchmarks.local_files import LocalFiles
from meteo_common.errors import TerminalError
from meteo_common.settings import load_settings
from meteo_hadoop.daily import daily_job
from meteo_hadoop.webhdfs import THREADS, FileSystem
from meteo_hadoop.yarn import TEMPORARY, YarnEngine


class HdfsDays:
    """A directory of HDFS; leaving the context removes it."""

    def __init__(self) -> None:
        self.settings = load_settings()
        self._filesystem = FileSystem(self.settings)
        self._base = f"{TEMPORARY}/_bench_{uuid.uuid4().hex[:10]}"

    def __enter__(self) -> HdfsDays:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._filesystem.delete_tree(self._base)

    def upload(self, sizes: Mapping[str, int], name: str = "days") -> dict[str, int]:
        """Copy local files into HDFS; return their bytes by their paths there."""
        there = {path: f"{self._base}/{name}/{Path(path).parent.name}/{Path(path).name}" for path in sizes}
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda path: self._filesystem.publish(there[path], LocalFiles().open(path)), sizes):
                pass
        return {there[path]: size for path, size in sizes.items()}


def run_identity(engine: YarnEngine, sizes: Mapping[str, int]) -> float:
    """Return the seconds of a Streaming job that passes all lines through `cat` as mapper and as reducer.

    Its input, splits, maps and reducers are those of the engine's own job.
    """
    job = daily_job(ZONE, None)
    paths = sorted(sizes)
    with engine._outputs(job) as output, tempfile.TemporaryDirectory(prefix="meteo-bench-") as folder:
        conf = Path(folder, "job.xml")
        conf.write_text(engine._configuration(job, paths, output), "utf-8")
        arguments = [
            *("-conf", str(conf), "-input", paths[0], "-output", output),
            *("-inputformat", "org.apache.hadoop.mapred.lib.CombineTextInputFormat"),
            *("-mapper", "cat", "-reducer", "cat"),
        ]
        started = time.monotonic()
        engine._client.run(arguments, Path(folder))
        seconds = time.monotonic() - started
        written = sum(entry.length for entry in engine._filesystem.list(output))
    if written < sum(sizes.values()):
        raise TerminalError(f"The identity job wrote {written} of {sum(sizes.values())} bytes.")
    return seconds
