"""What a Statefile asks of a container's processes: limits, a score, parameters of the kernel.

Its steps stand among those of enter.py and of joining.py. Numbers and names come from the runtime; what would reach
beyond the container is refused here once more.
"""

import errno
import os
import re
import resource
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tinyo_runtime.spawner import syscalls as sys

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan

#: Numbers of RLIMIT_* (getrlimit(2)), the same on x86-64 and arm64.
LIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip
#: Open files of a process, unless it asks for more; what is higher breaks programs that use select(2).
OPEN_FILES = 1024
#: Parameters that an ipc namespace has for itself (ipc_namespaces(7)); those of a network begin with "net.".
IPC = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+"
)
NET = re.compile(r"net(\.[A-Za-z0-9_-]+)+")
#: Where the spawner is, when it begins.
HOSTS_NETWORK = os.stat("/proc/self/ns/net").st_ino
RESOLVE_NO_XDEV, RESOLVE_BENEATH = 0x01, 0x08

Limits = Mapping[str, Sequence[int]]


def raise_limits(plan: "Plan") -> None:
    """What needs CAP_SYS_RESOURCE of the host: hard limits above ours, and the score, which is the least that a
    container can choose from then on (proc_pid_oom_score_adj(5)). Must come while /proc is the host's."""
    for name, (_, hard) in plan.message.get("ulimits", {}).items():
        soft, ours = resource.getrlimit(LIMITS[name])
        if ours != resource.RLIM_INFINITY and not 0 <= hard <= ours:
            limit(name, soft, hard)
    if score := plan.message.get("oom_score_adj"):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        write(fd, str(score), "oom_score_adj")


def set_limits(limits: Limits) -> None:
    """The limits as they were asked for; without, as many open files as programs expect."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for name, (soft, most) in {"nofile": (min(OPEN_FILES, hard), hard), **limits}.items():
        limit(name, soft, most)


def limit(name: str, soft: int, hard: int) -> None:
    """setrlimit(2); OSError names the limit. Python tells a hard limit that we may not have as a ValueError."""
    try:
        resource.setrlimit(LIMITS[name], (soft, hard))
    except (OSError, ValueError):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), f"ulimits {name}") from None


def set_sysctls(plan: "Plan") -> None:
    """proc_sys(5), still of the host's /proc: it shows the namespaces of whoever looks, and these are the container's.
    Anything that has no namespace is refused, and net.* on a network that is not its own."""
    for name, value in plan.message.get("sysctls", {}).items():
        own_network = os.stat("/proc/self/ns/net").st_ino != HOSTS_NETWORK
        if not (IPC.fullmatch(name) or (NET.fullmatch(name) and own_network)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        root = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | sys.RESOLVE_NO_SYMLINKS
            fd = sys.openat2(root, name.replace(".", "/"), os.O_WRONLY, resolve)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), name) from None
        finally:
            os.close(root)
        write(fd, value, name)


def write(fd: int, value: str, about: str) -> None:
    """Writes to a file of /proc and closes it; OSError is about `about`."""
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), about) from None
    finally:
        os.close(fd)
