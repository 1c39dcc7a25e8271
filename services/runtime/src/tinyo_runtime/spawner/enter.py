"""What a new process does between clone and exec, from top to bottom.

A container's first process does beforehand what is the same for all of them, and waits for its plan. Each
step that follows is a function of the plan. A step that fails raises OSError; the name of the step, the
errno and the object go back to the spawner as data. After `leave_the_host` nothing may be imported any
more: it would come from the container's files.
"""

import os
import signal
import socket
import warnings  # noqa: F401 (os.execvpe would import it)
from collections.abc import Callable, Sequence
from typing import NoReturn

from tinyo_runtime.spawner import failures, further, harden, mounts, protocol, system
from tinyo_runtime.spawner import syscalls as sys

#: The descriptors of the status pipe and of the socket for the plan in the child.
STATUS, PLANS = 3, 4
#: Above every descriptor (fs.nr_open); os.closerange is one close_range(2).
MAX_FD = 1 << 30


class Plan:
    """What is to be known of one process; made from a message, so every value is checked where it is used."""

    def __init__(
        self, message: protocol.Message, fds: list[int], folder: str, prepared: dict[str, int]
    ) -> None:
        self.message, self.fds = message, fds
        #: Where the root is mounted, and what can be moved into it.
        self.folder, self.prepared = folder, prepared
        #: Program and arguments; environment; working directory, absolute; "user", "uid", "user:group" or "".
        self.argv: list[str] = message["argv"]
        self.env: dict[str, str] = dict(entry.split("=", 1) for entry in message["env"])
        self.cwd: str = message["cwd"]
        self.user: str = message["user"]
        #: Descriptors of a file of each cgroup hierarchy to write "0" to; descriptors that become 0, 1 and 2.
        self.cgroups = [fds[index] for index in message["cgroups"]]
        self.stdio = [fds[index] for index in message["stdio"]]


Step = Callable[[Plan], None]


def join_cgroups(plan: Plan) -> None:
    """The limits hold from here on; the container sees its own cgroup as the root (cgroup_namespaces(7))."""
    for fd in plan.cgroups:
        os.write(fd, b"0")


def join_network(plan: Plan) -> None:
    """The network namespace was made by the runtime: descriptor `netns`."""
    sys.setns(plan.fds[plan.message["netns"]], sys.CLONE_NEWNET)
    sys.unshare(sys.CLONE_NEWCGROUP)
    socket.sethostname(plan.message["hostname"])


def mount_root(plan: Plan) -> None:
    """The image's layers (top first) and the container's own, in this mount namespace alone.

    Their names are found in `layers_dir`, a path and no descriptor: overlayfs takes only what it finds in the
    mount namespace of the caller. They are short, because mount(2) takes one page of options: 100 layers fit.
    The container's own folder is complete in itself, whatever the kernel's defaults: an image can be made of it.
    """
    os.chdir(plan.message["layers_dir"])
    options = "lowerdir={},upperdir={upper},workdir={work},redirect_dir=nofollow,metacopy=off,index=off"
    options = options.format(":".join(plan.message["layers"]), **plan.message)
    harden.check_options(options)
    sys.mount("overlay", plan.folder, "overlay", sys.MS_NODEV, options)
    os.chdir(plan.folder)


def mount_system(plan: Plan) -> None:
    """/proc, /dev and /sys."""
    system.mount(plan.prepared)


def mount_own(plan: Plan) -> None:
    """What the Statefile asked for, in its order: (target, descriptor of a detached mount, is a folder)."""
    for target, index, is_folder in plan.message["mounts"]:
        mounts.attach(plan.fds[index], target, make="folder" if is_folder else "file")


def leave_the_host(plan: Plan) -> None:
    """The root becomes "/", and the host's tree is gone: pivot_root(2), notes on `pivot_root(".", ".")`."""
    sys.pivot_root(".", ".")
    sys.detach(".")
    os.chdir("/")


def take_stdio(plan: Plan) -> None:
    """0, 1 and 2, and of the host nothing else (CVE-2024-21626); a session without a terminal; the umask."""
    for number, fd in zip(range(3), plan.stdio, strict=True):
        os.dup2(fd, number)
    os.closerange(STATUS + 1 + ("init" in plan.message), MAX_FD)
    os.setsid()
    os.umask(0o022)


def drop_privileges(plan: Plan) -> None:
    """The user of the plan, with the privileges that a container may have and no others."""
    harden.drop_privileges(plan.user, plan.env, plan.message)


def enter_cwd(plan: Plan) -> None:
    """As the user and inside the root."""
    os.chdir(plan.cwd)
    harden.stay_inside()


def execute(plan: Plan) -> None:
    """The program, found in PATH."""
    harden.default_signals()
    os.execvpe(plan.argv[0], plan.argv, plan.env)


CONTAINER: tuple[Step, ...] = (
    further.keep_reaper, join_cgroups, further.raise_limits, join_network, further.choose_apparmor_profile,
    further.map_layers, mount_root, mount_system, further.give_devices, further.make_console, further.set_sysctls, mount_own,
    leave_the_host, further.close_root, further.open_terminal, further.enter_userns, harden.read_program, take_stdio,
    further.take_terminal, drop_privileges, enter_cwd, further.execute_reaper, execute,
)  # fmt: skip


def enter(status: int, plans: int, steps: Sequence[Step], folder: str) -> NoReturn:
    """Waits for a plan, prepared in `folder` if it is for a new container, does its steps, and never returns.

    Closing the status pipe by exec means: started. Of the spawner's descriptors only these two stay, lest
    anybody's pipe or connection seem open because a process waits here.
    """
    step = "prepare"
    try:
        signal.set_wakeup_fd(-1)
        status = os.dup2(status, STATUS, inheritable=False)
        os.dup2(plans, PLANS, inheritable=False)
        os.closerange(PLANS + 1, MAX_FD)
        os.dup2(STATUS, 0, inheritable=False)  # the spawner's listener
        harden.be_unreadable()
        prepared = system.prepare(folder) if folder else {}
        step = "receive_plan"
        # Kept until exec: to let go of a socket that is open is a warning, and takes Python 0.1 ms.
        message, fds = protocol.receive(_held := socket.socket(fileno=PLANS)) or ({}, [])  # nobody needs us
        plan = Plan(message, fds, folder, prepared)
        for do in steps:
            step = do.__name__
            do(plan)
    except BaseException as error:
        failures.report(status, step, error)
    finally:  # whatever happens: the child of the spawner must not go on as a second one
        os._exit(127)
