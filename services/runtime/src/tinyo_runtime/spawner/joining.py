"""A further process in a container that runs: `exec`. It gets all that the container's own has."""

import os

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

#: What the spawner itself can be in for a moment, so that its child never is in the host's.
NAMES = ("pid", "net", "ipc", "uts", "cgroup")
BEFORE = sys.CLONE_NEWPID | sys.CLONE_NEWNET | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS | sys.CLONE_NEWCGROUP


def join_container(plan: Plan) -> None:
    """The mounts of a running container; all else was joined before the clone."""
    sys.setns(plan.fds[plan.message["container"]], sys.CLONE_NEWNS)


JOIN: tuple[Step, ...] = (
    join_cgroups, further.raise_limits, further.choose_apparmor_profile, join_container, further.enter_userns,
    further.open_terminal, harden.read_program, take_stdio, further.take_terminal, drop_privileges, enter_cwd, execute,
)  # fmt: skip


def clone(plan: protocol.Message, fds: list[int]) -> Process | None:
    """A process in the namespaces of the container whose pidfd is `container`; None for a new container."""
    if "bundle" in plan:
        from tinyo_runtime.spawner import bundle  # the host's files are still ours, and no runtime needs it

        return bundle.clone(plan, fds)
    if "container" not in plan:
        return None
    own = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in NAMES]
    try:
        sys.setns(fds[plan["container"]], BEFORE)  # CLONE_NEWPID is for the children that follow
        return start(0, JOIN)
    finally:
        for fd in own:
            sys.setns(fd, 0)
            os.close(fd)
