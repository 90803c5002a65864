"""
Which ports are taken, and by what.

The rule: only for messages to people when something does not start; no call uses this.
"""

from __future__ import annotations

import socket
from pathlib import Path

_LISTENING = "0A"


def is_free(host: str, port: int) -> bool:
    """Whether *port* of *host* could be listened on just now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return False
    return True


def next_free(host: str, port: int, taken: frozenset[int] = frozenset(), tries: int = 200) -> int:
    """The first free port from *port* on that is not in *taken*; 0, any free port, where *tries* ports are not."""
    for candidate in range(port, min(port + tries, 65_536)):
        if candidate not in taken and is_free(host, candidate):
            return candidate
    return 0


def holder(port: int) -> str:
    """Who listens on *port*, as ``name (process 123)``; ``""`` where this cannot be seen (Linux, /proc)."""
    inodes = _inodes(port)
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for link in (process / "fd").iterdir():
                target = str(link.readlink())
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    name = (process / "comm").read_text().strip()
                    return f"{name} (process {process.name})"
        except OSError:
            continue  # gone, or another user's
    return ""


def _inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found
