"""The engine `yarn`: Hadoop Streaming, one job for all files, however many.

The client is a JVM of its own, started from the settings HADOOP_CONF_DIR and HADOOP_CLASSPATH_JARS. It ends with this
process, whatever ends it, and the application with it where there is still time to say so.
"""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from xml.sax.saxutils import escape

from meteo_common.errors import MeteoError, TerminalError, UsageError
from meteo_common.settings import Settings
from meteo_hadoop import failures
from meteo_hadoop.bundle import pack
from meteo_hadoop.engine import Result
from meteo_hadoop.job import Job, Key
from meteo_hadoop.webhdfs import FileSystem
from meteo_hadoop.yarn_client import PROGRESS_WAIT, YarnClient

SPLIT_BYTES = 64 << 20, 256 << 20
"""A map task's least and greatest share: small files are combined up to it (60 files as 60 maps took 53 s, as one map
10 s). By these 53 s starting a map takes 0.9 s, twice as long as reckoned for 64 MB of rows: a large input has larger
shares."""
SPLITS = 8
"""Maps of an input for which a share is between the two: enough for the cores of a small cluster."""
REDUCER_BYTES = 512 << 20
MAX_REDUCERS = 8
"""One reducer for 350,000 lines of 1.5 KB: at 3 to 4 µs a row it then works about as long as it takes to start."""
# Of HDFS: where everyone may write.
TEMPORARY = "/tmp"  # noqa: S108
_UNSAFE = re.compile(r"[,{}\[\]*?^\\\n\r]")
_TEMPORARY_NAME = re.compile(r"_meteo_[a-z]+_(\d+)_")
_DAY = 86400
_PROPERTIES = {
    # By default the NameNode is asked for thousands of files one after the other.
    "mapreduce.input.fileinputformat.list-status.num-threads": "8",
    # Streaming leaves the key, a line's position, out only for its own input format.
    "stream.map.input.ignoreKey": "true",
    # One map of up to 32 MB in the container of the application itself: 12 s instead of 17 s; three maps: 20 s.
    "mapreduce.job.ubertask.enable": "true",
    "mapreduce.job.ubertask.maxmaps": "1",
    "mapreduce.job.ubertask.maxbytes": str(32 << 20),
}


class YarnEngine:
    """MapReduce on YARN.

    `reducers`: None for as many as `sizes` (bytes by path, where known) call for. `python`: its name on the nodes.
    `progress_wait`: seconds after which an application is given up that does not get on.
    """

    name = "yarn"

    def __init__(
        self,
        settings: Settings,
        *,
        reducers: int | None = None,
        sizes: Mapping[str, int] | None = None,
        python: str = "python3",
        properties: Mapping[str, str] | None = None,
        progress_wait: float = PROGRESS_WAIT,
    ) -> None:
        if settings.hadoop_conf_dir is None or settings.hadoop_classpath_jars is None:
            raise UsageError(
                "The engine yarn needs the settings HADOOP_CONF_DIR and HADOOP_CLASSPATH_JARS; ./meteo up writes them,"
                " or use --engine local."
            )
        self._settings = settings
        self._client = YarnClient(
            settings.hadoop_conf_dir, settings.hadoop_classpath_jars, settings.hdfs_user, progress_wait
        )
        self._keeps_history = _has_history_server(settings.hadoop_conf_dir)
        self._filesystem = FileSystem(settings)
        self._reducers, self._sizes, self._python = reducers, sizes or {}, python
        self._properties = properties or {}

    def run(self, job: Job, inputs: Sequence[str]) -> Result:
        """Run `job` over all lines of `inputs` as one application.

        Raises TerminalError when the application fails, UnreachableError when YARN does not answer or has no node,
        FileVanishedError when an input is no longer there.
        """
        paths = sorted(set(inputs))
        if not paths:
            return Result([], {})
        for path in paths:
            if _UNSAFE.search(path):
                raise UsageError(
                    f"YARN cannot read {path!r}: choose an HDFS_BASE_PATH without any of , {{}} [] * ? ^ \\."
                )
        with self._outputs(job) as output, tempfile.TemporaryDirectory(prefix="meteo-job-") as folder:
            archive, conf = Path(folder, "job.zip"), Path(folder, "job.xml")
            pack(job, archive)
            conf.write_text(self._configuration(job, paths, output), "utf-8")
            arguments = [
                *("-conf", str(conf), "-archives", f"{archive.as_uri()}#job"),
                *("-input", paths[0], "-output", output),
                *("-inputformat", "org.apache.hadoop.mapred.lib.CombineTextInputFormat"),
                *("-partitioner", "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner"),
                *("-mapper", f"{self._python} job mapper", "-reducer", f"{self._python} job reducer"),
            ]
            try:
                counters = self._client.run(arguments, Path(folder))
            except TerminalError as error:
                raise self._explained(error, output) from None
            return Result(sorted(self._results(job, output)), counters)

    def _configuration(self, job: Job, paths: Sequence[str], output: str) -> str:
        """Return the job's own configuration: as a file, because thousands of paths do not fit a command line."""
        properties = {
            **_PROPERTIES,
            "mapreduce.job.name": f"meteo-{job.name}",
            "mapreduce.input.fileinputformat.split.maxsize": str(self._suitable_split(paths)),
            "mapreduce.job.reduces": str(self._reducers or self._suitable_reducers(paths)),
            "stream.num.map.output.key.fields": str(job.key_fields),
            "mapreduce.partition.keypartitioner.options": f"-k1,{job.partition_fields}",
            failures.PROPERTY: failures.address(self._settings.hdfs_url, _failures(output), self._settings.hdfs_user),
            **self._properties,
        }
        if not self._keeps_history:
            # Without a history server nobody would ever clear away what each job leaves in the common directory.
            properties["mapreduce.jobhistory.intermediate-done-dir"] = _history(output)
        # The first one is the argument -input, which Streaming insists on and adds to these.
        if len(paths) > 1:
            properties["mapreduce.input.fileinputformat.inputdir"] = ",".join(paths[1:])
        lines = [
            f"<property><name>{escape(name)}</name><value>{escape(value)}</value></property>"
            for name, value in properties.items()
        ]
        return "\n".join(["<configuration>", *lines, "</configuration>"])

    def _suitable_split(self, paths: Sequence[str]) -> int:
        least, greatest = SPLIT_BYTES
        return min(max(least, self._total(paths) // SPLITS), greatest)

    def _suitable_reducers(self, paths: Sequence[str]) -> int:
        return min(MAX_REDUCERS, 1 + self._total(paths) // REDUCER_BYTES)

    def _total(self, paths: Sequence[str]) -> int:
        return sum(self._sizes.get(path, 0) for path in paths)

    def _explained(self, error: TerminalError, output: str) -> TerminalError:
        """Return the error with the last lines of the traceback that a task of the job left behind, if one did."""
        with suppress(MeteoError):
            for attempt in self._filesystem.list(_failures(output)):
                text = self._filesystem.read(f"{_failures(output)}/{attempt.name}")
                return TerminalError(f"{error} Its {attempt.name} ended with: {failures.last_lines(text)}")
        return error

    @contextmanager
    def _outputs(self, job: Job) -> Iterator[str]:
        """Give the name of a directory that is not there yet; with those beside it, it is deleted afterwards."""
        self._sweep()
        output = f"{TEMPORARY}/_meteo_{job.name}_{int(time.time())}_{uuid.uuid4().hex}"
        try:
            yield output
        finally:
            # What cannot be deleted now does no harm: nobody reads it, and a later run sweeps it away.
            with suppress(MeteoError):
                for path in (output, _history(output), _failures(output)):
                    self._delete(path)

    def _sweep(self) -> None:
        """Delete what runs that were killed a day ago or earlier have left: none lasts as long."""
        with suppress(MeteoError):
            for entry in self._filesystem.list(TEMPORARY):
                match = _TEMPORARY_NAME.match(entry.name)
                if match and int(match[1]) < time.time() - _DAY:
                    self._delete(f"{TEMPORARY}/{entry.name}")

    def _delete(self, path: str) -> None:
        for entry in self._filesystem.list(path):
            inner = f"{path}/{entry.name}"
            if entry.is_directory:
                self._delete(inner)
            else:
                self._filesystem.delete(inner)
        self._filesystem.delete(path)

    def _results(self, job: Job, output: str) -> Iterator[tuple[Key, bytes]]:
        names = [entry.name for entry in self._filesystem.list(output)]
        if "_SUCCESS" not in names:
            raise TerminalError(f"The job ended well but {output} is not complete; run it again.")
        for name in names:
            if name.startswith("part-"):
                content = self._filesystem.read(f"{output}/{name}")
                for line in content.split(b"\n"):
                    if line:
                        *partition, result = line.split(b"\t", job.partition_fields)
                        yield tuple(map(bytes.decode, partition)), result


def _history(output: str) -> str:
    return f"{output}_history"


def _failures(output: str) -> str:
    return f"{output}_failures"


def _has_history_server(conf: Path) -> bool:
    site = conf / "mapred-site.xml"
    return site.is_file() and "<name>mapreduce.jobhistory.address</name>" in site.read_text("utf-8")
