"""Who listens on which TCP port of this machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

LISTENING = "0A"
# Loopback and wildcard addresses as the kernel writes them; a server on another address is in nobody's way.
IN_THE_WAY = re.compile(r"0+|0100007F|0{24}01000000|0{16}FFFF00000100007F")


def listeners() -> dict[int, int | None]:
    """Port → process id; None where the process belongs to somebody else."""
    if not Path("/proc/net/tcp").exists():
        return by_lsof()
    ports: dict[str, int] = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING and IN_THE_WAY.fullmatch(address):
                ports[fields[9]] = int(port, 16)
    owners = owners_of(set(ports))
    return {port: owners.get(inode) for inode, port in ports.items()}


def owners_of(inodes: set[str]) -> dict[str, int]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:  # it ended, or is somebody else's
            continue
        for link in links:
            if link.startswith("socket:[") and link[8:-1] in inodes:
                found[link[8:-1]] = int(process.name)
    return found


def by_lsof() -> dict[int, int | None]:
    listing = subprocess.run(
        ["lsof", "-nP", "-iTCP", "-sTCP:LISTEN", "-Fpn"], capture_output=True, text=True, check=False
    )
    found: dict[int, int | None] = {}
    pid = None
    for line in listing.stdout.splitlines():
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("n"):
            found[int(line.rpartition(":")[2])] = pid
    return found


def parents() -> dict[int, tuple[int, str]]:
    """Process id → its parent and its name."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 2) for line in listing.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[2].strip()) for row in rows if len(row) == 3}


def holder(pid: int | None, processes: dict[int, tuple[int, str]]) -> str:
    """Who a listener is, for a sentence."""
    return f"{processes[pid][1]} (process {pid})" if pid in processes else "a process of another user"


def taken(port: int, service: str, name: str, who: str) -> str:
    """The sentence about a port that somebody else has."""
    return (
        f"Port {port}, which {service} needs ({name}), is taken by {who}. "
        "Stop that process, or shift all ports with METEO_PORT_OFFSET=1200."
    )
