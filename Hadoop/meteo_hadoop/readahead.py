"""Reading many files at once: threads fetch ahead, one thread computes, in the order of the files."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

from meteo_hadoop.source import Opener

READERS = 6
"""A small file is two requests and hardly any bytes: one reader would wait most of its time."""
# Files begun but not yet consumed, and chunks of 256 KB waiting in each: at most 24 MB.
_FILES_AHEAD = 12
_CHUNKS_AHEAD = 8

_Item = bytes | BaseException | None


def lines_of(source: Opener, groups: Sequence[Sequence[str]]) -> Iterator[Iterator[bytes]]:
    """Yield for each group of files its lines without newlines; a last line may lack its newline.

    A group's lines are to be consumed before the next group. They raise what `source.open` raises.
    """
    paths = list(chain.from_iterable(groups))
    ahead = _ReadAhead(source, paths, min(READERS, len(paths)))
    try:
        blocks = ahead.files()
        for group in groups:
            files = [next(blocks) for _ in group]
            yield chain.from_iterable(chain.from_iterable(files))
    finally:
        ahead.stop()


class _ReadAhead:
    """Threads that put a file's chunks into a queue of its own, then None, or an error in place of the rest."""

    def __init__(self, source: Opener, paths: Sequence[str], readers: int) -> None:
        self._source, self._paths = source, paths
        self._left = iter(range(len(paths)))
        self._lock = threading.Lock()
        self._stopped = False
        self._room = threading.Semaphore(_FILES_AHEAD)
        self._queues: defaultdict[int, queue.Queue[_Item]] = defaultdict(lambda: queue.Queue(_CHUNKS_AHEAD))
        for _ in range(readers):
            threading.Thread(target=self._read, name="reader", daemon=True).start()

    def files(self) -> Iterator[Iterator[list[bytes]]]:
        """Yield each file's blocks of lines, in the order of the paths.

        Divided into lines where they are consumed: another core's cache would be the wrong place for them.
        """
        return (_lines(self._chunks(index)) for index in range(len(self._paths)))

    def stop(self) -> None:
        """Let the readers end; what they have read is dropped."""
        self._stopped = True

    def _chunks(self, index: int) -> Iterator[bytes]:
        with self._lock:
            waiting = self._queues[index]
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
        with self._lock:
            del self._queues[index]
        self._room.release()

    def _read(self) -> None:
        while (index := self._next()) is not None:
            with self._lock:
                waiting = self._queues[index]
            try:
                for chunk in self._source.open(self._paths[index]):
                    if not self._put(waiting, chunk):
                        return
                end = None
            except BaseException as error:
                end = error
            self._put(waiting, end)

    def _next(self) -> int | None:
        """Wait for room, and return the next file's index; None when there is none or nobody consumes any more."""
        while not self._room.acquire(timeout=0.5):
            if self._stopped:
                return None
        with self._lock:
            return None if self._stopped else next(self._left, None)

    def _put(self, waiting: queue.Queue[_Item], item: _Item) -> bool:
        while not self._stopped:
            try:
                waiting.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False


def _lines(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield lists of whole lines."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk if rest else chunk).split(b"\n")
        rest = lines.pop()
        if lines:
            yield lines
    if rest:
        yield [rest]
