"""What a new process does between clone and exec, from top to bottom.

Each step is a function of the plan. A step that fails raises OSError; the name of the step, the errno
and the object go back to the spawner as data. After `leave_the_host` nothing may be imported any more:
it would come from the container's files.
"""

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner import users

#: The default capabilities of podman (containers-common): chown, dac_override, fowner, fsetid, kill,
#: setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap.
DEFAULT_CAPABILITIES = 0x800405FB
LAST_CAPABILITY = 40

#: What Python ignores, which exec would pass on.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

#: The descriptor of the status pipe in the child; the spawner keeps this number free of anything else.
STATUS = 3
#: Above every descriptor (fs.nr_open); os.closerange is one close_range(2).
MAX_FD = 1 << 30

#: What the OCI runtime specification's implementations hide and protect by default.
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip

NOSUID, NODEV, NOEXEC = sys.MOUNT_ATTR_NOSUID, sys.MOUNT_ATTR_NODEV, sys.MOUNT_ATTR_NOEXEC


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about one process; made from a message, so every value is checked where it is used."""

    #: Program and arguments.
    argv: list[str]
    #: Environment, "NAME=value".
    env: list[str]
    #: Working directory, absolute.
    cwd: str
    #: "user", "uid", "user:group", "uid:gid" or "".
    user: str
    #: Descriptors of `cgroup.procs` files, one for each hierarchy.
    cgroups: list[int]
    #: Descriptors that become 0, 1 and 2.
    stdio: list[int]
    #: Capabilities that the process may have, a bit mask.
    capabilities: int = DEFAULT_CAPABILITIES

    # For a new container:
    hostname: str = ""
    #: Descriptor of the network namespace.
    netns: int = -1
    #: Folder in which the names of `layers`, `upper` and `work` are found. A path, not a descriptor:
    #: overlayfs(5) takes only what it finds in the mount namespace of the caller.
    layers_dir: str = ""
    #: Folders of the root file system, top layer first.
    layers: list[str] = field(default_factory=list)
    upper: str = ""
    work: str = ""
    #: An empty folder to mount the root on, in the spawner's mount namespace.
    mount_point: str = ""
    #: (target, descriptor of a detached mount, is a folder).
    mounts: list[tuple[str, int, bool]] = field(default_factory=list)

    # For a process in a container that runs:
    #: pidfd of its first process.
    container: int = -1


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
    os.chdir(plan.layers_dir)
    options = f"lowerdir={':'.join(plan.layers)},upperdir={plan.upper},workdir={plan.work}"
    sys.mount("overlay", plan.mount_point, "overlay", sys.MS_NODEV, options)
    os.chdir(plan.mount_point)


def open_in_root(path: str, *, make: str = "", links: bool = True) -> int:
    """Opens `path` below the working directory as if that were "/" (CVE-2021-30465).

    With `make` ("folder" or "file") what is missing is made, one component at a time.
    """
    resolve = sys.RESOLVE_IN_ROOT | (sys.RESOLVE_NO_MAGICLINKS if links else sys.RESOLVE_NO_SYMLINKS)
    try:
        return sys.openat2(-100, path.lstrip("/") or ".", os.O_PATH, resolve)
    except FileNotFoundError:
        if not make:
            raise
    parent, name = os.path.split(path.rstrip("/"))
    folder = open_in_root(parent, make="folder", links=links)
    try:
        if make == "folder":
            os.mkdir(name, 0o755, dir_fd=folder)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=folder))
    finally:
        os.close(folder)
    return open_in_root(path, links=links)


def attach(mount: int, target: str, *, make: str = "", links: bool = True) -> None:
    """Moves a detached mount onto a target inside the root; both are descriptors when it happens."""
    fd = open_in_root(target, make=make, links=links)
    try:
        sys.move_mount(mount, fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None
    finally:
        os.close(fd)
        os.close(mount)


def mount_system(plan: Plan) -> None:
    """/proc, /sys and /dev. An image that has a link in their place is refused."""
    hardened = NOSUID | NODEV | NOEXEC
    attach(sys.new_mount("proc", hardened), "/proc", make="folder", links=False)
    attach(sys.new_mount("sysfs", hardened | sys.MOUNT_ATTR_RDONLY), "/sys", make="folder", links=False)
    dev = sys.new_mount("tmpfs", NOSUID | NOEXEC, mode="755", size="64k", source="tmpfs")
    for name, major, minor in DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    for name, to in DEVICE_LINKS:
        os.symlink(to, name, dir_fd=dev)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=dev)
    attach(dev, "/dev", make="folder", links=False)
    pts = sys.new_mount("devpts", NOSUID | NOEXEC, mode="620", gid="5", ptmxmode="666")
    attach(pts, "/dev/pts", links=False)
    attach(sys.new_mount("tmpfs", hardened, mode="1777", size="64m", source="shm"), "/dev/shm", links=False)
    attach(sys.new_mount("mqueue", hardened), "/dev/mqueue", links=False)


def mount_own(plan: Plan) -> None:
    """What the Statefile asked for, in its order."""
    for target, fd, is_folder in plan.mounts:
        attach(fd, target, make="folder" if is_folder else "file")


def protect_paths(plan: Plan) -> None:
    """Hides and write-protects the parts of /proc and /sys that are the host's (CVE-2025-31133)."""
    hidden = NOSUID | NODEV | NOEXEC | sys.MOUNT_ATTR_RDONLY
    for path in MASKED:
        with contextlib.suppress(FileNotFoundError):
            cover = sys.new_mount("tmpfs", hidden) if is_folder(path) else host_null()
            attach(cover, path, links=False)
    for path in READ_ONLY:
        with contextlib.suppress(FileNotFoundError):
            fd = open_in_root(path, links=False)
            copy = sys.open_tree(fd, "")
            os.close(fd)
            sys.make_private(copy, read_only=True)
            attach(copy, path, links=False)


def is_folder(path: str) -> bool:
    """Whether `path` in the root is a folder. FileNotFoundError when it is not there."""
    fd = open_in_root(path, links=False)
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def host_null() -> int:
    """A detached mount of the host's /dev/null, which must be the real one."""
    fd = sys.open_tree(-100, "/dev/null")
    if os.fstat(fd).st_rdev != os.makedev(1, 3):
        raise PermissionError(1, "not the null device", "/dev/null")
    return fd


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
    """User, groups and all five capability sets, in the order in which each still may be changed."""
    identity = users.lookup(plan.user)
    for capability in range(LAST_CAPABILITY + 1):
        if not plan.capabilities >> capability & 1:
            sys.prctl(sys.PR_CAPBSET_DROP, capability)
    for fd in (0, 1, 2):  # so that /dev/stdout can be opened again by this user
        os.fchown(fd, identity.uid, identity.gid)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    sys.prctl(sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_CLEAR_ALL)
    sys.capset(plan.capabilities if identity.uid == 0 else 0)
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    if not any(variable.startswith("HOME=") for variable in plan.env):
        plan.env.append(f"HOME={identity.home}")


def enter_cwd(plan: Plan) -> None:
    """As the user and inside the root; what it is must then lie beneath it (CVE-2024-21626)."""
    os.chdir(plan.cwd)
    if not os.getcwd().startswith("/"):
        raise PermissionError(1, "working directory outside of the container", plan.cwd)


def execute(plan: Plan) -> None:
    """The last default signals, then the program, found in PATH."""
    for number in IGNORED:
        sys.default_signal(number)
    env = dict(variable.split("=", 1) for variable in plan.env)
    name, not_allowed = plan.argv[0], None
    folders = [""] if "/" in name else env.get("PATH", "").split(":")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, name), plan.argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            not_allowed = error
    raise not_allowed or FileNotFoundError(2, "not found", name)


Step = Callable[[Plan], None]

CONTAINER: tuple[Step, ...] = (
    join_cgroups, join_network, mount_root, mount_system, mount_own, protect_paths, leave_the_host,
    take_stdio, drop_privileges, enter_cwd, execute,
)  # fmt: skip
PROCESS: tuple[Step, ...] = (
    join_cgroups, join_container, take_stdio, drop_privileges, enter_cwd, execute,
)  # fmt: skip


def enter(plan: Plan, status: int) -> NoReturn:
    """Runs the steps and never returns. Closing the status pipe by exec means: started."""
    step: Step = join_cgroups
    try:
        os.dup2(status, STATUS, inheritable=False)
        sys.prctl(sys.PR_SET_DUMPABLE, 0)  # nobody inside may look at us before exec (CVE-2016-9962)
        for step in PROCESS if plan.container >= 0 else CONTAINER:
            step(plan)
    except OSError as error:
        what = f"{step.__name__}\0{error.errno or 0}\0{error.filename or ''}"
    except BaseException as error:
        what = f"{step.__name__}\0{0}\0{error!r}"
    os.write(STATUS, os.fsencode(what))
    os._exit(127)
