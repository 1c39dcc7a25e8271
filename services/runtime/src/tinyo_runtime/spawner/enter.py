"""What a new process does between clone and exec, from top to bottom.

A container's first process does beforehand what is the same for all of them, and waits for its plan: the
spawner keeps one such process ready. Each step that follows is a function of the plan. A step that fails
raises OSError; the name of the step, the errno and the object go back to the spawner as data. After
`leave_the_host` nothing may be imported any more: it would come from the container's files.
"""

import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from tinyo_runtime.spawner import harden, mounts, protocol
from tinyo_runtime.spawner import syscalls as sys

#: What Python ignores, which exec would pass on.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

#: The descriptors of the status pipe and of the socket for the plan in the child.
STATUS, PLANS = 3, 4
#: Above every descriptor (fs.nr_open); os.closerange is one close_range(2).
MAX_FD = 1 << 30


class Plan:
    """Everything about one process; made from a message, so every value is checked where it is used."""

    def __init__(self, message: protocol.Message, fds: list[int]) -> None:
        #: Program and arguments; environment; working directory, absolute.
        self.argv: list[str] = message["argv"]
        self.env: dict[str, str] = dict(entry.split("=", 1) for entry in message["env"])
        self.cwd: str = message["cwd"]
        #: "user", "uid", "user:group", "uid:gid" or "".
        self.user: str = message["user"]
        #: Descriptors of a file of each cgroup hierarchy to write "0" to; descriptors that become 0, 1 and 2.
        self.cgroups = [fds[index] for index in message["cgroups"]]
        self.stdio = [fds[index] for index in message["stdio"]]
        #: pidfd of the container to join, or -1 for a new one, of which the rest is said:
        self.container = fds[message["container"]] if "container" in message else -1
        if self.container >= 0:
            return
        self.hostname: str = message["hostname"]
        self.netns = fds[message["netns"]]
        #: Folder in which the names of `layers` (top first), `upper` and `work` are found. A path, not a
        #: descriptor: overlayfs(5) takes only what it finds in the mount namespace of the caller.
        self.layers_dir: str = message["layers_dir"]
        self.layers: list[str] = message["layers"]
        self.upper: str = message["upper"]
        self.work: str = message["work"]
        #: (target, descriptor of a detached mount, is a folder).
        self.mounts = [(target, fds[index], folder) for target, index, folder in message["mounts"]]


def prepare(folder: str) -> None:
    """/proc and /dev, ready to be moved, on a file system of our own that hides an empty `folder`."""
    scratch = sys.new_mount("tmpfs", mounts.HARDENED, mode="700", source="tmpfs")
    target = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    sys.move_mount(scratch, target)
    os.close(scratch)
    os.close(target)
    os.chdir(folder)
    for name in ("proc", "dev", "root"):
        os.mkdir(name, 0o700)
    mounts.mount_proc()
    harden.protect_paths("/proc")
    mounts.mount_dev()


def join_cgroups(plan: Plan) -> None:
    """The limits hold from here on; the container sees its own cgroup as the root (cgroup_namespaces(7))."""
    for fd in plan.cgroups:
        os.write(fd, b"0")


def join_network(plan: Plan) -> None:
    """The namespace was made ready beforehand."""
    sys.setns(plan.netns, sys.CLONE_NEWNET)
    sys.unshare(sys.CLONE_NEWCGROUP)
    socket.sethostname(plan.hostname)


def mount_root(plan: Plan) -> None:
    """The image's layers and the container's own, in this mount namespace alone.

    Names are relative and short, because mount(2) takes one page of options: 100 layers fit.
    """
    scratch = os.getcwd()
    os.chdir(plan.layers_dir)
    options = f"lowerdir={':'.join(plan.layers)},upperdir={plan.upper},workdir={plan.work}"
    sys.mount("overlay", f"{scratch}/root", "overlay", sys.MS_NODEV, options)
    os.chdir(scratch)


def mount_system(plan: Plan) -> None:
    """/proc, /dev and /sys. An image that has a link in their place is refused."""
    ready = [(f"/{name}", os.open(name, os.O_PATH | os.O_CLOEXEC)) for name in ("proc", "dev")]
    os.chdir("root")
    for target, fd in ready:
        mounts.attach(fd, target, make="folder", links=False)
    mounts.mount_sys()
    harden.protect_paths("/sys")


def mount_own(plan: Plan) -> None:
    """What the Statefile asked for, in its order."""
    for target, fd, is_folder in plan.mounts:
        mounts.attach(fd, target, make="folder" if is_folder else "file")


def leave_the_host(plan: Plan) -> None:
    """The root becomes "/", and the host's tree is gone: pivot_root(2), notes on `pivot_root(".", ".")`."""
    sys.pivot_root(".", ".")
    sys.detach(".")
    os.chdir("/")


def join_container(plan: Plan) -> None:
    """All namespaces of a running container at once; its pid namespace was joined by the clone."""
    kinds = sys.CLONE_NEWNS | sys.CLONE_NEWNET | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS | sys.CLONE_NEWCGROUP
    sys.setns(plan.container, kinds)


def take_stdio(plan: Plan) -> None:
    """0, 1 and 2, and of the host nothing else (CVE-2024-21626); a session without a terminal; the umask."""
    for number, fd in enumerate(plan.stdio):
        os.dup2(fd, number)
    os.closerange(STATUS + 1, MAX_FD)
    os.setsid()
    os.umask(0o022)


def drop_privileges(plan: Plan) -> None:
    """The user of the plan, with the privileges that a container may have and no others."""
    harden.drop_privileges(plan.user, plan.env)


def enter_cwd(plan: Plan) -> None:
    """As the user and inside the root; what it is must then lie beneath it (CVE-2024-21626)."""
    os.chdir(plan.cwd)
    if not os.getcwd().startswith("/"):
        raise PermissionError(1, "working directory outside of the container", plan.cwd)


def execute(plan: Plan) -> None:
    """The last default signals, then the program, found in PATH."""
    for number in IGNORED:
        sys.default_signal(number)
    name, not_allowed = plan.argv[0], None
    folders = [""] if "/" in name else plan.env.get("PATH", "").split(":")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, name), plan.argv, plan.env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            not_allowed = error
    raise not_allowed or FileNotFoundError(2, "not found", name)


Step = Callable[[Plan], None]

CONTAINER: tuple[Step, ...] = (
    join_cgroups, join_network, mount_root, mount_system, mount_own, leave_the_host,
    take_stdio, drop_privileges, enter_cwd, execute,
)  # fmt: skip
PROCESS: tuple[Step, ...] = (
    join_cgroups, join_container, take_stdio, drop_privileges, enter_cwd, execute,
)  # fmt: skip


def enter(status: int, plans: int, folder: str | None) -> NoReturn:
    """Waits for a plan, prepared in `folder` if it is for a new container, does it, and never returns.

    Closing the status pipe by exec means: started. Of the spawner's descriptors only these two stay, lest
    anybody's pipe or connection seem open because a process waits here.
    """
    step = "prepare"
    try:
        os.dup2(status, STATUS, inheritable=False)
        os.dup2(plans, PLANS, inheritable=False)
        os.closerange(PLANS + 1, MAX_FD)
        os.dup2(STATUS, 0, inheritable=False)  # the spawner's listener
        harden.be_unreadable()
        if folder:
            prepare(folder)
        step = "receive_plan"
        received = protocol.receive(socket.socket(fileno=PLANS))
        if not received:
            os._exit(0)  # nobody needs us
        plan = Plan(*received)
        for do in PROCESS if plan.container >= 0 else CONTAINER:
            step = do.__name__
            do(plan)
    except OSError as error:
        what = f"{step}\0{error.errno or 0}\0{error.filename or ''}"
    except BaseException as error:
        what = f"{step}\0{0}\0{error!r}"
    os.write(STATUS, os.fsencode(what))
    os._exit(127)
