"""What a container sees of /proc, /sys and /dev.

/proc and /dev are the same for all of them, and are mounted before there is a plan.
"""

import contextlib
import os
import stat
from pathlib import Path

from tinyo_runtime.spawner import rehearsal
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.mounts import attach, open_in_root

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip

#: What the OCI runtime specification's implementations hide and protect by default, by mount.
MASKED = {
    "/proc": ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi",
              "timer_list", "timer_stats"),
    "/sys": ("devices/virtual/powercap", "firmware",
             *(str(path.relative_to("/sys")) for path in Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle"))),
}  # fmt: skip
READ_ONLY = {"/proc": ("bus", "fs", "irq", "sys", "sysrq-trigger")}

MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
DEVICES_ALLOWED = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
HARDENED = DEVICES_ALLOWED | MOUNT_ATTR_NODEV

SYS_fsopen, SYS_fsconfig, SYS_fsmount = 430, 431, 432
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6


def prepare(folder: str) -> dict[str, int]:
    """Mounts what is the same for all on a file system of our own that hides `folder`; a descriptor of each
    mount, to be moved, by target."""
    scratch = new_mount("tmpfs", HARDENED, mode="700", source="tmpfs")
    target = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    sys.move_mount(scratch, target, folder)
    os.close(scratch)
    os.close(target)
    os.chdir(folder)
    for name in ("proc", "dev"):
        os.mkdir(name, 0o700)
    mount_proc()
    mount_dev()
    rehearsal.rehearse()
    return {f"/{name}": os.open(name, os.O_PATH | os.O_CLOEXEC) for name in ("proc", "dev")}


def mount(prepared: dict[str, int]) -> None:
    """Moves what was prepared into the root, and adds what depends on the network namespace. An image that has a
    link in their place is refused."""
    for target, fd in prepared.items():
        attach(fd, target, make="folder", links=False)
    mount_sys()


def mount_proc() -> None:
    """/proc of this pid namespace."""
    attach(new_mount("proc", HARDENED), "/proc")
    protect_paths("/proc")


def mount_dev() -> None:
    """/dev, with the six devices that every program may expect and what is mounted below."""
    dev = new_mount("tmpfs", DEVICES_ALLOWED, mode="755", size="64k", source="tmpfs")
    for name, major, minor in DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    for name, to in DEVICE_LINKS:
        os.symlink(to, name, dir_fd=dev)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=dev)
    attach(dev, "/dev")
    pts = new_mount("devpts", DEVICES_ALLOWED, mode="620", gid="5", ptmxmode="666")
    attach(pts, "/dev/pts")
    attach(new_mount("tmpfs", HARDENED, mode="1777", size="64m", source="shm"), "/dev/shm")
    attach(new_mount("mqueue", HARDENED), "/dev/mqueue")


def mount_sys() -> None:
    """/sys, of which nothing can be written. It belongs to the network namespace, so that comes first."""
    attach(new_mount("sysfs", HARDENED | sys.MOUNT_ATTR_RDONLY), "/sys", make="folder", links=False)
    protect_paths("/sys")


def protect_paths(mount: str) -> None:
    """Hides and write-protects the parts of /proc and /sys that are the host's (CVE-2025-31133)."""
    for name in MASKED.get(mount, ()):
        mask(f"{mount}/{name}")
    for name in READ_ONLY.get(mount, ()):
        write_protect(f"{mount}/{name}")


def mask(path: str) -> None:
    """Hides a file or folder of the root below nothing; what is not there needs no hiding."""
    with contextlib.suppress(FileNotFoundError):
        fd = open_in_root(path, links=False)
        hides_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        os.close(fd)
        read_only = HARDENED | sys.MOUNT_ATTR_RDONLY
        attach(new_mount("tmpfs", read_only) if hides_folder else host_null(), path, links=False)


def host_null() -> int:
    """A detached mount of the host's /dev/null, which must be the real one (CVE-2025-31133)."""
    fd = sys.open_tree(sys.AT_FDCWD, "/dev/null")
    if os.fstat(fd).st_rdev != os.makedev(1, 3):
        raise PermissionError(1, "not the null device", "/dev/null")
    sys.make_private(fd, read_only=True)  # its mode and owner are the host's
    return fd


def write_protect(path: str) -> None:
    """A file or folder of the root can be read only; what is not there needs no protection."""
    with contextlib.suppress(FileNotFoundError):
        fd = open_in_root(path, links=False)
        copy = sys.open_tree(fd, "")
        os.close(fd)
        sys.make_private(copy, read_only=True)
        attach(copy, path, links=False)


def new_mount(kind: str, attributes: int = 0, **options: str) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a new file system, attached nowhere yet."""
    context = sys.syscall(SYS_fsopen, kind, sys.path_bytes(kind), 1)
    try:
        for key, value in options.items():
            sys.syscall(
                SYS_fsconfig,
                f"{key}={value}",
                context,
                FSCONFIG_SET_STRING,
                sys.path_bytes(key),
                sys.path_bytes(value),
                0,
            )
        sys.syscall(SYS_fsconfig, kind, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return sys.syscall(SYS_fsmount, kind, context, 1, attributes)
    finally:
        os.close(context)
