"""A further process in a container that runs: `exec`. It gets all that the container's own has.

It takes two. The first joins the container, all but its pid namespace: nobody inside sees it, or what it still has of the
host. The second is its clone in that pid namespace, a child of the spawner, which execs (docs/decisions/0028-joining.md).
"""

import ctypes
import mmap
import os
import signal

from tinyo_runtime.spawner import further, harden, protocol
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import (
    Plan,
    Step,
    drop_privileges,
    enter_cwd,
    execute,
    join_cgroups,
    take_stdio,
)
from tinyo_runtime.spawner.process import Process, start

CLONE_PARENT, CLONE_PARENT_SETTID = 0x00008000, 0x00100000
CAP_SYS_PTRACE = 1 << 19
SYS_clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
#: The namespaces of a container; that of its processes is for children that follow.
ALL = (
    sys.CLONE_NEWNS
    | sys.CLONE_NEWPID
    | sys.CLONE_NEWNET
    | sys.CLONE_NEWIPC
    | sys.CLONE_NEWUTS
    | sys.CLONE_NEWCGROUP
)


class Successor:
    """The second one. Its process id is known before it runs: the kernel writes it into memory that the spawner shares
    with the first one, and with nobody who can be reached from inside."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._pid = ctypes.c_int.from_buffer(self._memory)

    @property
    def pid(self) -> int:
        """0 as long as there is none."""
        return self._pid.value

    def clone_inside(self, plan: Plan) -> None:
        """clone(2), since filters of system calls refuse clone3; the first one ends here."""
        self._memory.madvise(mmap.MADV_DONTFORK)
        flags = CLONE_PARENT | CLONE_PARENT_SETTID | signal.SIGCHLD
        if sys.syscall(SYS_clone, "", flags, None, ctypes.addressof(self._pid)):
            os._exit(0)
        os.setsid()


#: Of processes whose first one may still go on.
_successors: dict[Process, Successor] = {}


def join_container(plan: Plan) -> None:
    """While the cgroup is joined already, and its namespace is still the host's."""
    sys.setns(plan.fds[plan.message["container"]], ALL)


def steps(message: protocol.Message, successor: Successor) -> tuple[Step, ...]:
    """The second one gives up its privileges itself, as its filter may refuse clone(2). It cannot be traced before exec,
    except by who has CAP_SYS_PTRACE: then there is nothing left to be had from it."""
    second: tuple[Step, ...] = (successor.clone_inside, drop_privileges)
    traced = message.get("capabilities", harden.DEFAULT_CAPABILITIES) & CAP_SYS_PTRACE
    second = (
        (drop_privileges, harden.give_up, successor.clone_inside)
        if traced
        else (successor.clone_inside, drop_privileges)
    )
    return (
        join_cgroups, further.raise_limits, further.choose_apparmor_profile, join_container, further.enter_userns,
        further.open_terminal, harden.read_program, take_stdio, *second, further.take_terminal, enter_cwd, execute,
    )  # fmt: skip


def clone(plan: protocol.Message, fds: list[int]) -> Process | None:
    """The first one, for the container whose pidfd is `container`; None for a new container."""
    if "bundle" in plan:
        from tinyo_runtime.spawner import bundle  # the host's files are still ours, and no runtime needs it

        return bundle.clone(plan, fds)
    if "container" not in plan:
        return None
    successor = Successor()
    process = start(0, steps(plan, successor))
    _successors[process] = successor
    return process


def succeed(children: dict[int, Process]) -> None:
    """From when there is a second one on, it is the process: to be called before anything is waited for, so that it
    cannot be another one by now."""
    for process, successor in [*_successors.items()]:
        if pid := successor.pid:
            children[pid] = children.pop(process.pid)
            os.close(process.pidfd)
            process.pid, process.pidfd = pid, os.pidfd_open(pid)
        if pid or process.pid not in children:  # the first one failed
            del _successors[process]
