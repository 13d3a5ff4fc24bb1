"""HDFS over WebHDFS: reading, and the one way in which a file of ours comes to its name.

`publish` writes under a temporary name, checks the length and renames with OVERWRITE, so that a reader of the final
name sees either nothing, the whole old file, or the whole new one.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import requests
from hdfs import HdfsError, InsecureClient
from hdfs.client import _Request
from requests.adapters import HTTPAdapter

from meteo_common.errors import MismatchError, TerminalError, TransientError, UnreachableError, UsageError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.source import FileVanishedError, Source, other_host

THREADS = 8
"""Files in flight at once: on one NameNode and DataNode 8 threads publish 2.7 times as fast as one, 16 no faster."""
TIMEOUT = (5.0, 60.0)


@dataclass(frozen=True)
class Written:
    """What went into a file: bytes, lines, and the sha256 of it all in hexadecimal."""

    bytes: int
    lines: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A directory's entry."""

    name: str
    is_directory: bool
    length: int


class _Client(InsecureClient):  # type: ignore[misc]
    """The library's, with the operation that it lacks."""

    _concat = _Request("POST")


class FileSystem:
    """The file system at HDFS_URL, as HDFS_USER. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", HTTPAdapter(pool_maxsize=2 * THREADS))
        self._url = settings.hdfs_url
        self.source = Source(settings.hdfs_url, settings.hdfs_user)
        self._client = _Client(settings.hdfs_url, user=settings.hdfs_user, timeout=TIMEOUT, session=session)

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents."""
        with self._translated(path):
            self._client.makedirs(path)

    def list(self, path: str) -> list[Entry]:
        """Return the entries of a directory in the order of their names; none when there is no such directory."""
        with self._translated(path):
            try:
                statuses = self._client.list(path, status=True)
            except HdfsError as error:
                if error.exception == "FileNotFoundException":
                    return []
                raise
        entries = [Entry(name, status["type"] == "DIRECTORY", status["length"]) for name, status in statuses]
        return sorted(entries, key=lambda entry: entry.name)

    def length(self, path: str) -> int | None:
        """Return a file's length in bytes, None when there is none."""
        with self._translated(path):
            try:
                return int(self._client.status(path)["length"])
            except HdfsError as error:
                if error.exception == "FileNotFoundException":
                    return None
                raise

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raises FileVanishedError when there is none."""
        return self.source.read(path)

    def delete(self, path: str) -> None:
        """Delete a file, or an empty directory; none there is fine."""
        with self._translated(path):
            self._client.delete(path)

    def delete_tree(self, path: str) -> None:
        """Delete a directory and all that is in it, at once; none there is fine."""
        with self._translated(path):
            self._client.delete(path, recursive=True)

    def concat(self, target: str, sources: Sequence[str]) -> None:
        """Append the files `sources`, of the same directory, to `target`; they are gone afterwards, all at once.

        Raises UnreachableError also for an answer that was lost: then only the directory says what has happened.
        """
        with self._translated(target):
            self._client._concat(target, sources=",".join(sources))

    def publish(
        self, path: str, chunks: Iterable[bytes], lines: int | None = None, *, unexplained: bool = False
    ) -> Written:
        """Write the chunks under a temporary name, check length and, if given, lines, and rename onto `path`.

        `unexplained`: a file lies at `path` that no book mentions. With the same bytes it is our own, of a writer that
        died after its rename; with others it is a stranger's, which MismatchError refuses to overwrite.
        Whoever publishes into a day holds the day's lock, so that the temporary name is ours alone: what lies there
        is a dead writer's and is overwritten.
        """
        temporary = posixpath.join(posixpath.dirname(path), f"_{posixpath.basename(path)}.tmp")
        counted = _Counted(chunks)
        with self._translated(temporary):
            self._client.write(temporary, data=iter(counted), overwrite=True)
        written = counted.written()
        length = self.length(temporary)
        if length != written.bytes:
            raise TransientError(f"HDFS holds {length} of the {written.bytes} bytes written to {temporary}.")
        if lines is not None and written.lines != lines:
            raise MismatchError(f"{written.lines} rows were to go into {path}, the plan says {lines}.")
        if unexplained and not self._holds(path, written):
            self.delete(temporary)
            raise MismatchError(
                f"{path} is taken by a file that is none of ours, or was changed; it was not overwritten: move it away."
            )
        reach("export.after_write")
        self._rename(temporary, path, written)
        return written

    def _rename(self, temporary: str, path: str, written: Written) -> None:
        """Rename over `path`. An answer that was lost is settled by what lies at the final name."""
        try:
            self._rename_once(temporary, path)
        except UnreachableError:
            try:
                self._rename_once(temporary, path)
            except FileVanishedError:
                if not self._holds(path, written):
                    raise MismatchError(f"{path} is not what was renamed to it; run the command again.") from None

    def _holds(self, path: str, written: Written) -> bool:
        return self.length(path) == written.bytes and hashlib.sha256(self.read(path)).hexdigest() == written.sha256

    def _rename_once(self, temporary: str, path: str) -> None:
        with self._translated(temporary):
            self._client._rename(temporary, destination=path, renameoptions="OVERWRITE")

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """Turn the client library's errors into ours."""
        try:
            yield
        except HdfsError as error:
            raise self._translate(path, error) from error
        except (requests.RequestException, OSError) as error:
            datanode = other_host(self._url, error)
            where = f"The DataNode at {datanode}" if datanode else f"HDFS at {self._url} (HDFS_URL)"
            raise UnreachableError(
                f"{where} cannot be reached ({_reason(error)}); is the stack up? (./meteo up)"
            ) from error

    def _translate(self, path: str, error: HdfsError) -> TerminalError | TransientError:
        text = str(error.message).split("\n", 1)[0].rstrip(".")
        if error.exception == "FileNotFoundException":
            return FileVanishedError(f"{path} is not in HDFS.")
        if error.exception == "SafeModeException" or "safe mode" in text:
            return TransientError(f"The NameNode is in safe mode and takes no writes yet ({path}); wait for it.")
        if error.exception == "AccessControlException":
            return UsageError(f"HDFS refuses: {text}; check HDFS_USER and the owner of the directory.")
        if "could only be written to 0" in text or "Failed to find datanode" in text:
            return TransientError(f"HDFS has no DataNode with room for {path}: none is up, or its disk is full.")
        if error.exception in {"DSQuotaExceededException", "NSQuotaExceededException"}:
            return TransientError(f"HDFS has no room for {path} within its quota ({text}); raise the quota.")
        return TransientError(f"HDFS failed at {path}: {text}.")


class _Counted:
    """Passes chunks on and counts what went through."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self._bytes = self._lines = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            self._bytes += len(chunk)
            self._lines += chunk.count(b"\n")
            yield chunk

    def written(self) -> Written:
        return Written(self._bytes, self._lines, self._digest.hexdigest())


def _reason(error: Any) -> str:
    with suppress(AttributeError, IndexError):
        error = error.args[0].reason
    return type(error).__name__
