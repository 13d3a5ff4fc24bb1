"""The client of YARN: a JVM that submits a Streaming job and waits for it; its output, understood."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from meteo_common.errors import MeteoError, TerminalError, TransientError, UnreachableError, UsageError
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.streaming import COUNTERS

CONTAINER_WAIT = 120.0
"""Seconds after which an accepted application that still has no container is given up: no node, or none with room."""
PROGRESS_WAIT = 1800.0
"""Seconds after which a running application is given up whose percentage stands still: of 1 TB, 1 % takes two cores
800 s. A single task that hangs is ended by YARN sooner, after 600 s, and repeated."""
_PR_SET_PDEATHSIG = 1
_JVM = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "--add-opens=java.base/java.lang=ALL-UNNAMED")
# By default the client looks for an absent ResourceManager for 15 minutes.
_PATIENCE = (
    *("-D", "yarn.resourcemanager.connect.max-wait.ms=5000"),
    *("-D", "yarn.resourcemanager.connect.retry-interval.ms=1000"),
    *("-D", "ipc.client.connect.max.retries=0"),
)
# Counters and the application's address are told at INFO: the client must not depend on the stack's own log level.
_LOG4J = """log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%p %c{1}: %m%n
"""
_APPLICATION = re.compile(r"application_\d+_\d+")
_TRACKING = re.compile(r"url to track the job: (\S+)", re.IGNORECASE)
_RUNNING = re.compile(r"Job job_\S+ running in uber mode")
_PROGRESS = re.compile(r"map \d+% reduce \d+%|Task Id : attempt_")
_COUNTER = re.compile(r"\t\t([^=]+)=(\d+)")
_FINAL_STATE = re.compile(r"^\s*Final-State : (\w+)", re.MULTILINE)
_DIAGNOSTICS = re.compile(r"^\s*Diagnostics : (.*?)\n(?:\n|\tUnmanaged)", re.MULTILINE | re.DOTALL)
_NOISE = re.compile(
    r"^(INFO |DEBUG |WARN |log4j:|packageJobJar|Streaming Command Failed|\s+at |\t|\s*\.\.\. \d+ more|\[.*\]$)"
)


class YarnClient:
    """Runs Hadoop Streaming; `conf` is the client's configuration folder, `jars` the folder of its class path.

    `progress_wait`: seconds after which an application is given up that does not get on.
    """

    def __init__(self, conf: Path, jars: Path, user: str, progress_wait: float = PROGRESS_WAIT) -> None:
        self._conf, self._jars, self._user = conf, jars, user
        self._progress_wait = progress_wait

    def run(self, arguments: Sequence[str], folder: Path) -> dict[str, int]:
        """Run a Streaming job to its end and return our counters; `folder` takes the client's files.

        Raises TerminalError with the job's last words, UnreachableError, FileVanishedError or UsageError.
        """
        (folder / "log4j.properties").write_text(_LOG4J, "utf-8")
        output = _Output(self._progress_wait)
        process = self._start(["org.apache.hadoop.streaming.HadoopStreaming", *_PATIENCE, *arguments], folder)
        ended = threading.Event()
        threading.Thread(target=_watch, args=(output, process, ended), daemon=True).start()
        assert process.stdout is not None  # noqa: S101
        try:
            for line in process.stdout:
                output.take(line.rstrip("\n"))
            code = process.wait()
        except BaseException:
            self._end(process)
            self._kill(output, folder)
            raise
        finally:
            ended.set()
            process.stdout.close()
        if code == 0:
            return output.counters
        if output.given_up:
            self._kill(output, folder)
        elif output.application and not output.finished:
            self._ask(output, folder)
        raise output.error(code)

    def _start(self, arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
        java = self._java()
        class_path = f"{folder}:{self._conf}:{self._jars}/*"
        return subprocess.Popen(
            [java, *_JVM, "-cp", class_path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "HADOOP_USER_NAME": self._user},
            preexec_fn=_end_with_parent(),
        )

    def _java(self) -> str:
        home = os.environ.get("JAVA_HOME")
        java = shutil.which("java", path=str(Path(home, "bin"))) if home else None
        java = java or shutil.which("java")
        if java is None:
            raise UsageError("The engine yarn needs Java; set JAVA_HOME, or use --engine local.")
        return java

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _kill(self, output: _Output, folder: Path) -> None:
        """Kill the application, as far as that is possible: a job that nobody waits for only takes room."""
        if output.application is not None:
            self._application("-kill", output.application, folder)

    def _ask(self, output: _Output, folder: Path) -> None:
        """Ask for the end of an application whose master was gone before the client could ask it.

        The client then turns to the history server, and a small cluster has none.
        """
        assert output.application is not None  # noqa: S101
        report = self._application("-status", output.application, folder)
        if state := _FINAL_STATE.search(report):
            output.ended = state[1]
        if diagnostics := _DIAGNOSTICS.search(report):
            output.diagnostics = " | ".join(diagnostics[1].splitlines()[:12])

    def _application(self, action: str, application: str, folder: Path) -> str:
        main = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
        process = self._start([main, "application", action, application], folder)
        try:
            return process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return ""


class _Output:
    """What the client has said so far."""

    def __init__(self, progress_wait: float = PROGRESS_WAIT) -> None:
        self.progress_wait = progress_wait
        self.application: str | None = None
        self.tracking: str | None = None
        self.running = self.finished = self.given_up = False
        # When the application last got on, by the monotonic clock.
        self.moved_at = time.monotonic()
        self.ended = self.diagnostics = ""
        self.counters: dict[str, int] = {}
        self._group: str | None = None
        self._last: deque[str] = deque(maxlen=12)
        self._unreachable = self._vanished = False

    def take(self, line: str) -> None:
        """Understand one line."""
        if (match := _APPLICATION.search(line)) and self.application is None:
            self.application = match[0]
            self.moved_at = time.monotonic()
        if match := _TRACKING.search(line):
            self.tracking = match[1]
        if _RUNNING.search(line):
            self.running = True
            self.moved_at = time.monotonic()
        if _PROGRESS.search(line):
            self.moved_at = time.monotonic()
        if "completed successfully" in line or "failed with state" in line:
            self.running = self.finished = True
        if "Input path does not exist" in line:
            self._vanished = True
        if "ConnectException" in line or "Retrying connect to server" in line or "Connection refused" in line:
            self._unreachable = True
        self._take_counter(line)
        if line.strip() and not _NOISE.match(line):
            self._last.append(line.strip().removeprefix("ERROR StreamJob: "))

    def error(self, code: int) -> MeteoError:
        """Return what an exit with `code` means."""
        if self.given_up and self.running:
            return UnreachableError(
                f"{self.application} ({self.tracking}) has run for {self.progress_wait:.0f} s without getting on and"
                " was killed; are all NodeManagers up, with memory to spare? (./meteo status)"
            )
        if self.given_up:
            return UnreachableError(
                f"YARN has accepted {self.application} but given it no container for {CONTAINER_WAIT:.0f} s;"
                " is a NodeManager up, with memory to spare? (./meteo status)"
            )
        words = self.diagnostics or " | ".join(self._last) or f"the client ended with {code}"
        where = f"{self.application} ({self.tracking})" if self.application else "The job"
        if self._vanished:
            return FileVanishedError(f"An input of the job is no longer in HDFS (merged or expired meanwhile): {words}")
        if self.application is None and self._unreachable:
            return UnreachableError(f"YARN cannot be reached; is the stack up? (./meteo up) The client said: {words}")
        if self.ended == "SUCCEEDED":
            return TransientError(f"{where} ended well, but its counters were lost on the way; run it again.")
        if self.application is not None and not self.finished and not self.ended:
            return UnreachableError(f"YARN no longer answers about {where}: {words}")
        return TerminalError(f"{where} failed on YARN: {words}")

    def _take_counter(self, line: str) -> None:
        if match := _COUNTER.fullmatch(line):
            if self._group == COUNTERS:
                self.counters[match[1]] = int(match[2])
        elif line.startswith("\t"):
            self._group = line.strip()


def _watch(output: _Output, process: subprocess.Popen[str], ended: threading.Event) -> None:
    """End the client of an application that gets no container, or does not get on."""
    while not ended.wait(0.5):
        wait = output.progress_wait if output.running else CONTAINER_WAIT
        stands = output.application is not None and not output.finished
        if stands and time.monotonic() - output.moved_at > wait:
            output.given_up = True
            process.terminate()
            return


def _end_with_parent() -> Callable[[], None]:
    # Loaded before the fork: afterwards only the system call may happen.
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask
