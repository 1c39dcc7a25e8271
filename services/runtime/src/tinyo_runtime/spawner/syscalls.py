"""The system calls that Python lacks, one thin function each, named and documented by its man page.

Every function raises OSError with the errno and, as `filename`, the object that the call was about.
"""

import ctypes
import os
import signal
import struct
from typing import Any

CLONE_PIDFD = 0x00001000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NODEV = 4
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_EMPTY_PATHS = 0x04 | 0x40
MOUNT_ATTR_RDONLY = 0x01

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

# The same numbers on x86-64 and arm64 for everything since 2019 (asm-generic); the older one differs.
SYS_pivot_root = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
SYS_open_tree, SYS_move_mount, SYS_clone3, SYS_openat2, SYS_mount_setattr = 428, 429, 435, 437, 442

# PyDLL keeps the interpreter's lock: a clone must not happen while another thread could take it.
libc = ctypes.PyDLL(None, use_errno=True)
# A register holds a number or an address: c_void_p takes int, bytes, None and arrays, in 64 bits.
libc.syscall.restype = ctypes.c_long
libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]


def check(result: int, about: str) -> int:
    """The result of a call of the C library, unless it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)
    return result


def syscall(number: int, about: str, *args: Any) -> int:
    """syscall(2)."""
    return check(libc.syscall(number, *args, *(0,) * (6 - len(args))), about)


def path_bytes(path: str) -> bytes:
    """Bytes for the kernel; ctypes would cut a path short at a NUL, so one is refused."""
    if "\0" in path:
        raise ValueError(f"path with a NUL: {path!r}")
    return os.fsencode(path)


def clone(flags: int) -> tuple[int, int]:
    """clone3(2) that returns twice, like fork: (pid, pidfd) here, (0, -1) in the child.

    Only for a process with one thread: what other threads held would stay locked in the child.
    """
    pidfd = ctypes.c_int(-1)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, and six that stay 0
    args = struct.pack("11Q", flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, *(0,) * 6)
    pid = syscall(SYS_clone3, "clone", args, len(args))
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2): a namespace's descriptor, or a pidfd and the kinds of its namespaces to join."""
    check(libc.setns(fd, flags), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); relative paths are the caller's, and options end at a page."""
    check(
        libc.mount(path_bytes(source), path_bytes(target), path_bytes(kind), flags, path_bytes(options)),
        target,
    )


def detach(path: str) -> None:
    """umount2(2) with MNT_DETACH."""
    check(libc.umount2(path_bytes(path), MNT_DETACH), path)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    syscall(SYS_pivot_root, new, path_bytes(new), path_bytes(old))


def open_tree(fd: int, path: str, flags: int = 0) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a copy of the mount at `path`, attached nowhere yet."""
    flags |= OPEN_TREE_CLONE | os.O_CLOEXEC | (0 if path else AT_EMPTY_PATH)
    return syscall(SYS_open_tree, path, fd, path_bytes(path), flags)


def move_mount(mount_fd: int, target_fd: int, target: str) -> None:
    """move_mount(2) of one descriptor onto another; no path is looked up, `target` is for errors."""
    syscall(SYS_move_mount, target, mount_fd, b"", target_fd, b"", MOVE_MOUNT_EMPTY_PATHS)


def make_private(mount_fd: int, *, read_only: bool) -> None:
    """mount_setattr(2): this mount and all below it propagate nothing, and can be made read-only."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes = struct.pack("4Q", MOUNT_ATTR_RDONLY if read_only else 0, 0, MS_PRIVATE, 0)
    flags = AT_EMPTY_PATH | AT_RECURSIVE
    syscall(SYS_mount_setattr, "mount_setattr", mount_fd, b"", flags, attributes, len(attributes))


def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2)."""
    how = struct.pack("3Q", flags | os.O_CLOEXEC, 0, resolve)
    return syscall(SYS_openat2, path, fd, path_bytes(path), how, len(how))
