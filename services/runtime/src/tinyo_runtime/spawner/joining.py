"""A further process in a container that runs: `exec`. It gets all that the container's own has.

It takes two. The first joins the container, all but its pid namespace: nobody inside sees it, or what it still has of the
host. The second is its clone in that pid namespace, a child of the spawner, which execs (docs/decisions/0028-joining.md).
"""

import ctypes
import mmap
import os
import signal
import socket
import sys as python

if __name__ == "__main__":  # see `renew`; `-I -S` leaves only the standard library on the path
    python.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.spawner import further, harden, protocol
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import (
    PLANS,
    STATUS,
    Plan,
    Step,
    drop_privileges,
    enter,
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
#: Where a program that a first process became finds the page of its successor.
PAGE = PLANS + 1


class Successor:
    """The second one. Its process id is known before it runs: the kernel writes it into a page that the spawner shares
    with the first one, and with nobody else."""

    def __init__(self, fd: int = -1) -> None:
        """The page is in a file if it must outlive an exec of the first one."""
        self._page = mmap.mmap(fd, mmap.PAGESIZE)
        self._pid = ctypes.c_int.from_buffer(self._page)

    @property
    def pid(self) -> int:
        """0 as long as there is none."""
        return self._pid.value

    def hide(self) -> None:
        """No child that this process has from now on gets the page: whoever is in a container could write there."""
        self._page.madvise(mmap.MADV_DONTFORK)

    def clone_inside(self, plan: Plan) -> None:
        """clone(2), since filters of system calls refuse clone3; the first one ends here."""
        self.hide()
        self._pid.value = 0  # so that the page is there: the kernel does not say when it had no memory for it
        flags = CLONE_PARENT | CLONE_PARENT_SETTID | signal.SIGCHLD
        if sys.syscall(SYS_clone, "", flags, None, ctypes.addressof(self._pid)):
            os._exit(0)
        os.setsid()

    def steps(self, *, traced: bool) -> tuple[Step, ...]:
        """The second one gives up its privileges itself, as its filter may refuse clone(2). It cannot be traced before
        exec, except by who has CAP_SYS_PTRACE: then it has no privilege left that they do not have."""
        second: tuple[Step, ...] = (self.clone_inside, drop_privileges)
        if traced:
            second = (drop_privileges, harden.give_up, self.clone_inside)
        return (
            join_cgroups, further.raise_limits, further.choose_apparmor_profile, join_container, further.enter_userns,
            further.open_terminal, harden.read_program, take_stdio, *second, further.take_terminal, enter_cwd, execute,
        )  # fmt: skip


#: Of processes whose first one may still go on.
_successors: dict[Process, Successor] = {}


def join_container(plan: Plan) -> None:
    """While the cgroup is joined already, and its namespace is still the host's."""
    sys.setns(plan.fds[plan.message["container"]], ALL)


def renew(plan: Plan) -> None:
    """Whoever may trace the second one finds in its memory what the spawner had in its own, such as the environment of
    other containers. So the first one becomes a program that knows nothing but its plan."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    protocol.prepare(here)
    protocol.send(here, plan.message, plan.fds)
    page = os.dup(plan.fds[plan.message["page"]])
    os.set_inheritable(STATUS, True)
    os.dup2(there.fileno(), PLANS)
    os.dup2(page, PAGE)
    os.execve(python.executable, [python.executable, "-I", "-S", __file__], {"LANG": "C.UTF-8"})


def clone(plan: protocol.Message, fds: list[int]) -> Process | None:
    """The first one, for the container whose pidfd is `container`; None for a new container."""
    if "bundle" in plan:
        from tinyo_runtime.spawner import bundle  # the host's files are still ours, and no runtime needs it

        return bundle.clone(plan, fds)
    if "container" not in plan:
        return None
    if plan.get("capabilities", harden.DEFAULT_CAPABILITIES) & CAP_SYS_PTRACE:
        plan["page"] = len(fds)
        fds.append(os.memfd_create("successor"))
        os.ftruncate(fds[-1], mmap.PAGESIZE)
        successor = Successor(fds[-1])
        process = start(0, (renew,))
    else:
        successor = Successor()
        process = start(0, successor.steps(traced=False))
    successor.hide()
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


if __name__ == "__main__":
    enter(os.dup(STATUS), os.dup(PLANS), Successor(PAGE).steps(traced=True), "")
