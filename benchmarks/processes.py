"""What processes use: processor time by whose it is, and memory. From /proc, so nothing of it on other systems."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
SAMPLE_SECONDS = 0.1


def cpu_of_family(pid: int) -> float:
    """Return the seconds of processor time of a process and its children, those that ended included."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(folder)
        if fields and int(folder.name) == pid:
            total += sum(int(value) for value in fields[11:15]) / TICK
        elif fields and int(fields[1]) == pid:
            total += sum(int(value) for value in fields[11:13]) / TICK
    return total


def find(*words: str) -> int:
    """Return the id of the process whose command line holds all these words; 0 when there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(folder.name) != os.getpid() and all(word in command for word in words):
            return int(folder.name)
    return 0


class Accounts:
    """Processor time of the clients and of each server, for one arm."""

    def __init__(self, servers: dict[str, int]) -> None:
        self._servers = {name: pid for name, pid in servers.items() if pid}

    @contextmanager
    def counting(self, into: dict[str, float]) -> Iterator[None]:
        """Add `cpu_<whose>_seconds` to `into` for what runs meanwhile; children must have ended by then."""
        before = self._now()
        yield
        for name, seconds in self._now().items():
            into[f"cpu_{name}_seconds"] = seconds - before[name]

    def _now(self) -> dict[str, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        clients = sum(each.ru_utime + each.ru_stime for each in used)
        return {"clients": clients, **{name: cpu_of_family(pid) for name, pid in self._servers.items()}}


class Memory:
    """Samples the resident memory of a process until it ends, in MiB."""

    def __init__(self, pid: int) -> None:
        self.samples: list[float] = []
        self._file = Path(f"/proc/{pid}/statm")
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def peak(self) -> float:
        """The greatest sample."""
        return max(self.samples, default=0.0)

    def at(self, share: float) -> float:
        """Return the median of the samples around this share of the time."""
        middle = int(share * (len(self.samples) - 1))
        near = sorted(self.samples[max(0, middle - 5) : middle + 6])
        return near[len(near) // 2] if near else 0.0

    def stop(self) -> None:
        """Sample no more."""
        self._ended.set()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._ended.wait(SAMPLE_SECONDS):
            try:
                resident = int(self._file.read_text().split()[1]) * page / MIB
            except (OSError, IndexError):
                return
            if resident:
                self.samples.append(resident)


def _stat(folder: Path) -> list[str] | None:
    """Return the fields of /proc/PID/stat behind the name: state, parent, …; times at 11 to 14 (proc(5) 14 to 17)."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
