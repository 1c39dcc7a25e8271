"""What the kernel says of a container that runs: read from its folder in /proc, which is opened once.

That folder is the process's and no other's, whatever becomes of its number: it is opened while a descriptor of the
process (pidfd_open(2)) still finds it. What stands in there may be the container's own words.
"""

import asyncio
import errno
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tinyo.v1 import inspect_pb2 as v1
from tinyo.v1.security_pb2 import Capability

from tinyo_runtime import failures, hierarchies
from tinyo_runtime.containers import Containers
from tinyo_runtime.options import apparmor

#: Bytes that are read of a file, and of the command; mounts that are told, and bytes of them.
ROOM, COMMAND, MOUNTS, MOUNTS_ROOM = 4 << 20, 4096, 1000, 1 << 20
#: The kernel's errors about a process that has ended.
ENDED = (errno.ESRCH, errno.ENOENT, errno.EINVAL)
#: Limits from here on are none: those of v1's memory, which are rounded (PAGE_COUNTER_MAX).
NO_LIMIT = 1 << 62
#: Files of limits, of v1 and v2 alike.
LIMITS = (
    *("cpu.max", "cpu.weight", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    *("cpuset.cpus", "cpuset.mems", "pids.max"),
    *("memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.max"),
    *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
    *("io.max", "io.weight", "blkio.weight", "blkio.bfq.weight"),
    *(f"blkio.throttle.{what}_{unit}_device" for what in ("read", "write") for unit in ("bps", "iops")),
)
SETS = {
    "bounding": "CapBnd",
    "permitted": "CapPrm",
    "effective": "CapEff",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}


async def inspect(containers: Containers, id: str) -> v1.Inspection:
    """All at one moment. CONTAINER_NOT_FOUND, CONTAINER_NOT_RUNNING."""
    container = containers.get(id)
    process, name = container.process, container.config.spec.name
    if not process or process.pidfd < 0:
        raise failures.not_running(name)
    pidfd = os.dup(process.pidfd)
    try:
        return await asyncio.to_thread(read, process.pid, pidfd, f"{containers.cgroups.name}/{id}")
    except OSError as error:
        if error.errno not in ENDED:
            raise
        raise failures.not_running(name) from None
    finally:
        os.close(pidfd)


class Folder(NamedTuple):
    """An open folder in /proc."""

    fd: int

    def text(self, name: str, most: int = ROOM) -> str:
        """Of a file, or as much of it. OSError."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        with open(fd, "rb") as file:
            return printable(file.read(most))

    def lines(self, name: str) -> list[str]:
        """Of a file, by nothing but the kernel's own ends of lines."""
        return self.text(name).removesuffix("\n").split("\n")

    def table(self, name: str) -> dict[str, str]:
        """Of a file with lines of a name, ":" and a value."""
        lines = (line.partition(":") for line in self.lines(name))
        return {name: value.strip() for name, _, value in lines}


def read(pid: int, pidfd: int, cgroup: str) -> v1.Inspection:
    """Of a process in that cgroup. OSError (ENDED) when it has ended."""
    opened = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        signal.pidfd_send_signal(pidfd, 0)  # it was still there, and so its number was nobody else's
        found = v1.Inspection(pid=pid)
        for part in (process, namespaces, identity, label, limits, mounts):
            part(found, Folder(opened))
        found.cgroups.extend(cgroups(Folder(opened), cgroup))
        return found
    finally:
        os.close(opened)


def process(found: v1.Inspection, folder: Folder) -> None:
    """Command, capabilities, system calls (proc_pid_status(5))."""
    found.command[:] = folder.text("cmdline", COMMAND).removesuffix("\0").split("\0")
    status = folder.table("status")
    for field, key in SETS.items():
        getattr(found.capabilities, field).extend(capabilities(int(status.get(key, "0"), 16)))
    found.no_new_privileges = status.get("NoNewPrivs") == "1"
    if "Seccomp" in status:
        found.seccomp = v1.SeccompMode.ValueType(int(status["Seccomp"]) + 1)
    if "Seccomp_filters" in status:
        found.seccomp_filters = int(status["Seccomp_filters"])
    found.oom_score_adj = int(folder.text("oom_score_adj"))


def capabilities(mask: int) -> Iterator[str]:
    """By name; those that are newer than we are by number."""
    known: dict[int, str] = {number: name for name, number in Capability.items()}
    for number in (number for number in range(64) if mask >> number & 1):
        yield known.get(number + 1, f"CAPABILITY_{number}").replace("CAPABILITY", "CAP", 1)


def namespaces(found: v1.Inspection, folder: Folder) -> None:
    """By the links that stand for them (namespaces(7))."""
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")}
    for kind in sorted(ours):
        link = os.readlink(f"ns/{kind}", dir_fd=folder.fd)
        inode = int(link.partition("[")[2].removesuffix("]"))
        found.namespaces.add(kind=kind, inode=inode, of_host=link == ours[kind])


def identity(found: v1.Inspection, folder: Folder) -> None:
    """Users and groups, as they are on the host (user_namespaces(7))."""
    status = folder.table("status")
    found.identity.uid, found.identity.gid = (int(status[key].split()[0]) for key in ("Uid", "Gid"))
    found.identity.groups[:] = map(int, status.get("Groups", "").split())
    for name in ("uid_map", "gid_map"):
        for line in folder.lines(name):
            inside, outside, count = map(int, line.split())
            getattr(found.identity, name).add(inside=inside, outside=outside, count=count)


def label(found: v1.Inspection, folder: Folder) -> None:
    """Of AppArmor, where the kernel has it."""
    if apparmor.there():
        found.apparmor = folder.text("attr/current").rstrip("\0\n")


def limits(found: v1.Inspection, folder: Folder) -> None:
    """proc_pid_limits(5), whose columns have their places."""
    for line in folder.lines("limits")[1:]:
        name, soft, hard, unit = (part.strip() for part in (line[:26], line[26:47], line[47:68], line[68:]))
        limit = found.limits.add(name=name, unit=unit)
        for field, value in (("soft", soft), ("hard", hard)):
            if value != "unlimited":
                setattr(limit, field, int(value))


def cgroups(folder: Folder, place: str) -> Iterator[v1.Cgroup]:
    """Each line of cgroups(7), with the limits that its folder has."""
    known = hierarchies.controllers()
    for line in folder.lines("cgroup"):
        _, controllers, path = line.split(":", 2)
        names = [hierarchies.V2_NAMES.get(name, name) for name in controllers.split(",")]
        places = [known[name] for name in names if name in known]
        if not controllers:
            places = [one for one in known.values() if one.v2]
        found = v1.Cgroup(controllers=controllers, path=path)
        if places and (own := places[0].hierarchy / place).is_dir():
            found.folder = str(own)
            found.limits.update(in_force(own))
        yield found


def in_force(folder: Path) -> Iterator[tuple[str, str]]:
    """What limits a cgroup."""
    for name in LIMITS:
        try:
            value = (folder / name).read_text().strip()
        except OSError:  # there is no such file, or it went just now
            continue
        none = value in ("", "max", "-1") or value.startswith("max ")
        if not none and not (value.isdecimal() and int(value) >= NO_LIMIT):
            yield name, value


def mounts(found: v1.Inspection, folder: Folder) -> None:
    """proc_pid_mountinfo(5)."""
    room = MOUNTS_ROOM
    lines = folder.lines("mountinfo")
    for line in lines[:MOUNTS]:
        room -= len(line)
        if room < 0:
            break
        before, _, after = line.partition(" - ")
        _, _, _, root, target, flags, *spread = map(unescaped, before.split(" "))
        kind, source, options = map(unescaped, [*after.split(" "), "", ""][:3])
        point = v1.MountPoint(target=target, root=root, kind=kind, source=source, propagation=spread)
        point.flags[:], point.options[:] = flags.split(","), options.split(",")
        found.mounts.append(point)
    found.further_mounts = len(lines) - len(found.mounts)


#: Spaces, tabs, newlines and backslashes in such a file, and how they are read back.
_ESCAPE: tuple[re.Pattern[str], Callable[[re.Match[str]], str]] = (
    re.compile(r"\\(011|012|040|043|134)"),
    lambda match: chr(int(match[1], 8)),
)


def unescaped(text: str) -> str:
    """A part of a line as it is."""
    return _ESCAPE[0].sub(_ESCAPE[1], text)


def printable(data: bytes) -> str:
    """As text, in which a byte that is none stands as "\\xff"."""
    return data.decode(errors="backslashreplace")
