"""How a process ended that the present spawner never was the parent of.

When a spawner dies its processes become children of the runtime (a child subreaper), which may wait for
them; those of a spawner that outlived its runtime become children of init, and since Linux 6.15 the
kernel still says how they ended to whoever holds a pidfd.
"""

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime.spawner import harden, protocol

if TYPE_CHECKING:
    from tinyo_runtime.spawnclient import Process

PR_SET_CHILD_SUBREAPER = 36
PIDFD_INFO_EXIT = 0x8
PIDFD_INFO_SIZE = 64  # PIDFD_INFO_SIZE_VER0, in which the exit code comes last
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO_SIZE << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, …)


def become_subreaper() -> None:
    """Orphans of our spawner become our children (PR_SET_CHILD_SUBREAPER(2const))."""
    harden.prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap_session(session: int) -> None:
    """Waits for those children of ours that a spawner, the leader of that session, had made ready and not
    used: they end when it does."""
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                if os.getsid(pid) == session:
                    os.waitid(os.P_PID, pid, os.WEXITED)


def reap_strangers(known: Collection[int]) -> None:
    """Waits for children of ours that ended in containers and that nobody else waits for: the spawner died before it told of
    them. A container does not end before that."""
    for task in Path("/proc/self/task").iterdir():
        for pid in {*map(int, (task / "children").read_text().split())}.difference(known):
            with contextlib.suppress(ChildProcessError, FileNotFoundError, ProcessLookupError):
                if in_container(pid):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def in_container(pid: int) -> bool:
    """Whether a process has a number in a further pid namespace (proc_pid_status(5)). FileNotFoundError."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(status.partition("\nNSpid:")[2].partition("\n")[0].split()) > 1


def complete(message: protocol.Message, process: "Process") -> None:
    """Says in a message `exited` what the spawner could not: it was never the parent of that process."""
    if message["status"] < 0:
        status, signaled = status_of(process.pid, process.pidfd) or (-1, False)
        message |= {"status": status, "signaled": signaled}


def status_of(pid: int, pidfd: int) -> tuple[int, bool] | None:
    """Exit code or signal of a process that ended, and whether it was a signal; None when nobody can say."""
    with contextlib.suppress(ChildProcessError):
        if result := os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG):
            return result.si_status, result.si_code != os.CLD_EXITED
    status = _of_zombie(pid, pidfd)
    if status is None:
        status = _of_reaped(pidfd)
    if status is None:
        return None
    return (os.WTERMSIG(status), True) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), False)


def _of_zombie(pid: int, pidfd: int) -> int | None:
    """Wait status of a process that its parent has not waited for yet (proc_pid_stat(5), exit_code)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        signal.pidfd_send_signal(pidfd, 0)  # it is there still, so that what we read was about it
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[49]) if stat[0] == "Z" else None


def _of_reaped(pidfd: int) -> int | None:
    """Wait status of a process that is gone (PIDFD_GET_INFO, since Linux 6.15)."""
    info = bytearray(struct.pack("Q", PIDFD_INFO_EXIT).ljust(PIDFD_INFO_SIZE, b"\0"))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:  # an older kernel has no such call
        return None
    mask, status = struct.unpack_from("Q52xi", info)
    return status if mask & PIDFD_INFO_EXIT else None
