"""Which process holds a port: /proc/net/{tcp,udp} says which socket, and /proc/PID/fd who has that open."""

import os
import socket
from contextlib import suppress
from pathlib import Path


def holder(kind: int, port: int) -> str:
    """ "nginx (pid 812)", or "another program" when that cannot be found."""
    inodes = set(_inodes(kind, port))
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it ended while we looked
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}") in inodes:
                    return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return "another program"


def _inodes(kind: int, port: int) -> list[str]:
    """Sockets on a port, as links of /proc/PID/fd name them."""
    found = []
    for name in ("tcp", "tcp6") if kind == socket.SOCK_STREAM else ("udp", "udp6"):
        with suppress(FileNotFoundError):  # no IPv6
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(f"socket:[{fields[9]}]")
    return found
