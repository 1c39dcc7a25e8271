"""What a container sees of /proc, /sys and /dev, and how anything gets to its place in a root.

The working directory is the root here: every target is looked up below it, as if it were "/".
"""

import contextlib
import os
import stat

from tinyo_runtime.spawner import syscalls as sys

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip

NOSUID, NODEV, NOEXEC = sys.MOUNT_ATTR_NOSUID, sys.MOUNT_ATTR_NODEV, sys.MOUNT_ATTR_NOEXEC
HARDENED = NOSUID | NODEV | NOEXEC


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
    """Moves a mount onto a target inside the root; both are descriptors when it happens."""
    fd = open_in_root(target, make=make, links=links)
    try:
        sys.move_mount(mount, fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None
    finally:
        os.close(fd)
        os.close(mount)


def mount_proc() -> None:
    """/proc of this pid namespace."""
    attach(sys.new_mount("proc", HARDENED), "/proc")


def mount_dev() -> None:
    """/dev, with the six devices that every program may expect and what is mounted below."""
    dev = sys.new_mount("tmpfs", NOSUID | NOEXEC, mode="755", size="64k", source="tmpfs")
    for name, major, minor in DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    for name, to in DEVICE_LINKS:
        os.symlink(to, name, dir_fd=dev)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=dev)
    attach(dev, "/dev")
    pts = sys.new_mount("devpts", NOSUID | NOEXEC, mode="620", gid="5", ptmxmode="666")
    attach(pts, "/dev/pts")
    attach(sys.new_mount("tmpfs", HARDENED, mode="1777", size="64m", source="shm"), "/dev/shm")
    attach(sys.new_mount("mqueue", HARDENED), "/dev/mqueue")


def mount_sys() -> None:
    """/sys, of which nothing can be written. It belongs to the network namespace, so that comes first."""
    attach(sys.new_mount("sysfs", HARDENED | sys.MOUNT_ATTR_RDONLY), "/sys", make="folder", links=False)


def mask(path: str) -> None:
    """Hides a file or folder of the root below nothing; what is not there needs no hiding."""
    with contextlib.suppress(FileNotFoundError):
        fd = open_in_root(path, links=False)
        hides_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        os.close(fd)
        cover = sys.new_mount("tmpfs", HARDENED | sys.MOUNT_ATTR_RDONLY) if hides_folder else _host_null()
        attach(cover, path, links=False)


def write_protect(path: str) -> None:
    """A file or folder of the root can be read only; what is not there needs no protection."""
    with contextlib.suppress(FileNotFoundError):
        fd = open_in_root(path, links=False)
        copy = sys.open_tree(fd, "")
        os.close(fd)
        sys.make_private(copy, read_only=True)
        attach(copy, path, links=False)


def _host_null() -> int:
    """A detached mount of the host's /dev/null, which must be the real one (CVE-2025-31133)."""
    fd = sys.open_tree(-100, "/dev/null")
    if os.fstat(fd).st_rdev != os.makedev(1, 3):
        raise PermissionError(1, "not the null device", "/dev/null")
    return fd
