"""A further process in a container that runs: `exec`. It gets all that the container's own has."""

import os

from tinyo_runtime.spawner import protocol
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


def join_container(plan: Plan) -> None:
    """All namespaces of a running container at once; its pid namespace was joined by the clone."""
    kinds = sys.CLONE_NEWNS | sys.CLONE_NEWNET | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS | sys.CLONE_NEWCGROUP
    sys.setns(plan.fds[plan.message["container"]], kinds)


JOIN: tuple[Step, ...] = (join_cgroups, join_container, take_stdio, drop_privileges, enter_cwd, execute)


def clone(plan: protocol.Message, fds: list[int]) -> Process | None:
    """A process in the pid namespace of the container whose pidfd is `container`; None for a new container."""
    if "container" not in plan:
        return None
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sys.setns(fds[plan["container"]], sys.CLONE_NEWPID)  # of the children that follow
        return start(0, JOIN)
    finally:
        sys.setns(own, sys.CLONE_NEWPID)
        os.close(own)
