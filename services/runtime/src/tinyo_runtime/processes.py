"""The processes of a container, as the kernel says it (proc(5)); what they say of themselves is hostile.

A process is looked at through a descriptor of its folder in /proc: once it has ended there is nothing in that any more,
whoever has its number then.
"""

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tinyo.v1.top_pb2 import ContainerProcess

from tinyo_runtime import lookups, verbs
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.spawner import syscalls as sys

TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
#: Bytes of a command that are told, and of all together; and of the container's /etc/passwd that are read.
COMMAND, COMMANDS, PASSWD = 4096, 8 << 20, 1 << 20
RESOLVE_NO_XDEV = 0x01


async def read(containers: Containers, id: str) -> list[ContainerProcess]:
    """Oldest first. CONTAINER_NOT_RUNNING. A thread does it: there may be thousands."""
    return await asyncio.to_thread(_read, containers, verbs.running(containers, id))


def _read(containers: Containers, container: Container) -> list[ContainerProcess]:
    own, first_id = containers.cgroups.roots[0] / container.config.id, container.state.userns.first_id
    found = list[ContainerProcess]()
    users: dict[int, str] | None = None
    members = {*_members(own)}
    for pid in members:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            with _opened(pid) as folder:
                if f"/{containers.cgroups.name}/{container.config.id}" not in _text(folder, "cgroup"):
                    continue  # it has ended, and another one has its number
                one = _process(folder, pid, min(COMMAND, COMMANDS // len(members)))
                if users is None:
                    users = _users(folder)
            one.uid -= first_id if one.uid >= first_id else 0
            one.user = users.get(one.uid, "")
            found.append(one)
    return sorted(found, key=lambda one: (-one.age_ms, one.host_pid))


def _members(cgroup: Path) -> Iterator[int]:
    """All that are in a cgroup, and in those that the container made in it."""
    for folder, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):  # it has just been taken away
            yield from map(int, Path(folder, "cgroup.procs").read_text().split())


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    fd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _bytes(folder: int, name: str, limit: int = 1 << 16) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def _text(folder: int, name: str) -> str:
    return _bytes(folder, name).decode(errors="backslashreplace")


def _process(folder: int, pid: int, most: int) -> ContainerProcess:
    """What proc_pid_stat(5), proc_pid_status(5) and proc_pid_cmdline(5) say, at most so many bytes of the last."""
    before, _, after = _text(folder, "stat").rpartition(")")
    fields = after.split()
    status = dict(line.partition(":")[::2] for line in _text(folder, "status").splitlines())
    numbers = status.get("NSpid", "").split()
    command = _bytes(folder, "cmdline", most)
    return ContainerProcess(
        pid=int(numbers[-1]) if len(numbers) > 1 else 0,
        host_pid=pid,
        host_parent_pid=int(fields[1]),
        uid=int(status["Uid"].split()[1]),
        state=fields[0],
        cpu_ms=(int(fields[11]) + int(fields[12])) * 1000 // TICK,
        rss_bytes=int(fields[21]) * PAGE,
        age_ms=max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**6 - int(fields[19]) * 1000 // TICK),
        command=[part.decode(errors="backslashreplace") for part in command.rstrip(b"\0").split(b"\0")]
        if command
        else [],
        comm=before.partition("(")[2],
    )


def _users(folder: int) -> dict[int, str]:
    """Names of users by their number: what a file says that is whatever the container made of it."""
    with contextlib.ExitStack() as opened:
        try:
            root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            opened.callback(os.close, root)
            # Nothing is opened before it is known what it is: opening a device may do something. And nothing of another
            # file system is, since a link may lead to /proc/kmsg, which we can read, and then it is nobody else's.
            how = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
            found = lookups.opened(root, "etc/passwd", os.O_PATH | os.O_CLOEXEC, how)
            opened.callback(os.close, found)
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return {}
            file = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            opened.callback(os.close, file)
            lines = os.read(file, PASSWD).decode(errors="backslashreplace").splitlines()
        except OSError:  # there is none here, or the process has ended
            return {}
    rows = [line.split(":") for line in lines]
    return {
        int(row[2]): row[0]
        for row in reversed(rows)
        if len(row) > 2 and row[2].isascii() and row[2].isdecimal()
    }
