"""Where each controller of cgroups is on this machine: in a hierarchy of v1, in that of v2, or nowhere (cgroups(7))."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Names of v1 for what v2 calls otherwise.
V2_NAMES = {"blkio": "io"}


@dataclass(frozen=True)
class Place:
    """A controller: the mount point of its hierarchy, and whether that is v2."""

    hierarchy: Path
    v2: bool


@cache
def controllers() -> dict[str, Place]:
    """Every controller by its name in v2; cpuacct and freezer, which v2 has not, by that of v1."""
    return read(Path("/proc/self/mountinfo").read_text())


def read(mountinfo: str) -> dict[str, Place]:
    """As `controllers` (proc_pid_mountinfo(5))."""
    found: dict[str, Place] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        folder = Path(before.split(" ")[4])
        if kind == "cgroup":
            for name in options.split(","):
                found.setdefault(V2_NAMES.get(name, name), Place(folder, False))
        elif kind == "cgroup2":
            for name in (folder / "cgroup.controllers").read_text().split():
                found.setdefault(name, Place(folder, True))
    return found


def kernel() -> str:
    """Its release."""
    return os.uname().release
