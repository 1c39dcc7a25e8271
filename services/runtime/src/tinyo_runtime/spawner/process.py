"""A process that the spawner cloned, and what belongs to it."""

import contextlib
import os
import socket
from collections.abc import Sequence

from tinyo_runtime.spawner import protocol
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import CONTAINER, Step, enter

#: The namespaces of a new container, save those of its network (made by the runtime) and cgroup (once joined).
NAMESPACES = sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS


class Process:
    """From its clone until the runtime says that it may be forgotten."""

    def __init__(self, pid: int, pidfd: int, status: int = -1, plans: socket.socket | None = None) -> None:
        self.pid, self.pidfd = pid, pidfd
        #: Its status pipe; -1 when that was read.
        self.status = status
        #: Where it gets its plan.
        self.plans = plans
        self.id = ""
        #: The runtime's ends of its pipes, kept so that they outlive the runtime.
        self.kept: list[int] = []
        #: What `failures.report` said of it; nothing when exec succeeded.
        self.failure = b""
        self.exit: protocol.Message | None = None

    def follow(self, plan: protocol.Message, fds: list[int], kept: list[int]) -> None:
        """Gives it its plan."""
        assert self.plans
        self.id = plan["id"]
        with self.plans, contextlib.suppress(ConnectionError):  # if it is dead already, its status says why
            self.kept = list(map(os.dup, kept))
            protocol.send(self.plans, plan, fds)

    def hear(self) -> None:
        """Reads the status pipe, which ends when its process execs or ends."""
        with contextlib.suppress(BlockingIOError):  # it has ended, and somebody still holds the other end
            self.failure = os.read(self.status, 4096)
        os.close(self.status)
        self.status = -1

    def close(self) -> None:
        if self.plans:
            self.plans.close()
        for fd in {self.pidfd, *self.kept, self.status} - {-1}:
            os.close(fd)


def start(namespaces: int = NAMESPACES, steps: Sequence[Step] = CONTAINER, folder: str = "") -> Process:
    """Clones a process in new namespaces that waits for its plan; a container's root is made in `folder`."""
    plans, childs_plans = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    protocol.prepare(plans)
    status, childs_status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid, pidfd = sys.clone(namespaces)
        if pid == 0:  # the child never comes back from here
            enter(childs_status, childs_plans.fileno(), steps, folder)
    except OSError:
        plans.close()
        os.close(status)
        raise
    finally:
        childs_plans.close()
        os.close(childs_status)
    return Process(pid, pidfd, status, plans)
