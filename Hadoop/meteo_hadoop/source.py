"""Reading files of HDFS over WebHDFS: whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit

import requests

from meteo_common.errors import TransientError, UnreachableError

CHUNK = 256 << 10
"""Bytes read at once: with 256 KB a core took 7.6 µs a line, with 4 MB 9.8 µs: lines are decoded while in its cache."""
_TIMEOUT = (5.0, 60.0)
_ATTEMPTS = 3


class FileVanishedError(TransientError):
    """A file was there when it was listed and is not any more: it was merged or expired; read the manifest again."""


class Opener(Protocol):
    """Anything that opens files by path; it can be pickled, because other processes read too."""

    def open(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes in chunks of any size, all of them or an error."""
        ...


@dataclass(frozen=True)
class Source:
    """The files of HDFS, by a WebHDFS base URL and the user to read as.

    Each thread keeps one session, so that a file costs two requests and no new connection.
    """

    hdfs_url: str
    user: str

    def open(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes in chunks; a read that breaks off before the first is tried up to three times.

        Raises FileVanishedError for a file that is not there, UnreachableError when a server does not answer or
        breaks off, even after bytes were yielded: what was made of them is worth nothing then.
        """
        received = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._answer(path) as answer:
                    length = answer.headers.get("Content-Length")
                    for chunk in answer.iter_content(CHUNK):
                        received += len(chunk)
                        yield chunk
                break
            except requests.RequestException as error:
                if received or attempt == _ATTEMPTS:
                    datanode = other_host(self.hdfs_url, error)
                    where = f"The DataNode at {datanode}" if datanode else f"HDFS at {self.hdfs_url} (HDFS_URL)"
                    raise UnreachableError(f"{where} broke off reading {path} ({type(error).__name__}).") from None
        if length is not None and received != int(length):
            raise UnreachableError(f"HDFS sent {received} of {length} bytes of {path}; try again.")

    def read(self, path: str) -> bytes:
        """Return all of a file; raises as `open`."""
        return b"".join(self.open(path))

    def _answer(self, path: str) -> requests.Response:
        url = f"{self.hdfs_url}/webhdfs/v1{quote(path)}"
        answer = _session().get(url, params={"op": "OPEN", "user.name": self.user}, stream=True, timeout=_TIMEOUT)
        if answer.status_code == 200:
            return answer
        reason = _reason(answer)
        answer.close()
        if answer.status_code == 404:
            raise FileVanishedError(f"{path} is no longer in HDFS (merged or expired meanwhile); try again.")
        if "No active nodes" in reason:
            raise UnreachableError(f"No DataNode that holds {path} is up; start it, ./meteo status shows the servers.")
        raise UnreachableError(f"HDFS at {self.hdfs_url} refuses to read {path}: {reason}.")


def other_host(url: str, error: object) -> str | None:
    """Return the host and port that a failed request was for, if it is another than that of `url`: a DataNode's."""
    asked = getattr(getattr(error, "request", None), "url", None)
    host = urlsplit(asked).netloc if asked else ""
    return host if host and host != urlsplit(url).netloc else None


_local = threading.local()


def _session() -> requests.Session:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
        # No proxies from the environment: HDFS is never behind one, and they would be looked up at each request.
        _local.session.trust_env = False
    session: requests.Session = _local.session
    return session


def _reason(answer: requests.Response) -> str:
    try:
        return str(answer.json()["RemoteException"]["message"]).splitlines()[0]
    except (ValueError, KeyError, IndexError):
        return f"HTTP {answer.status_code}"
