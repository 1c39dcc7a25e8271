"""The system calls that Python lacks, one thin function each, named and documented by its man page.

Every function raises OSError with the errno and, as `filename`, the object that the call was about.
"""

import ctypes
import os
import signal
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000

MS_NOSUID = 2
MS_NODEV = 4
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08

#: How often openat2 is tried while others mount and rename.
RETRIES = 1000
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

# The same numbers on x86-64 and arm64 for everything since 2019 (asm-generic); the older ones differ.
_OLD = {"x86_64": (126, 155, 13), "aarch64": (91, 41, 134)}
SYS_capset, SYS_pivot_root, SYS_rt_sigaction = _OLD[os.uname().machine]
SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount = 428, 429, 430, 431, 432
SYS_clone3, SYS_openat2, SYS_mount_setattr = 435, 437, 442

# PyDLL keeps the interpreter's lock: a clone must not happen while another thread could take it.
_libc = ctypes.PyDLL(None, use_errno=True)
# A register holds a number or an address: c_void_p takes int, bytes, None, arrays and byref(), in 64 bits.
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]


def _check(result: int, about: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), about)
    return result


def _path(path: str) -> bytes:
    """Bytes for the kernel; ctypes would cut a path short at a NUL, so one is refused."""
    if "\0" in path:
        raise ValueError(f"path with a NUL: {path!r}")
    return os.fsencode(path)


def _syscall(number: int, about: str, *args: Any) -> int:
    """syscall(2)."""
    return _check(_libc.syscall(number, *args, *(0,) * (6 - len(args))), about)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def clone(flags: int) -> tuple[int, int]:
    """clone3(2) that returns twice, like fork: (pid, pidfd) here, (0, -1) in the child.

    Only for a process with one thread: what other threads held would stay locked in the child.
    """
    pidfd = ctypes.c_int(-1)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, and six that stay 0
    args = (ctypes.c_uint64 * 11)(flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD)
    pid = _syscall(SYS_clone3, "clone", ctypes.byref(args), ctypes.sizeof(args))
    return (pid, pidfd.value) if pid else (0, -1)


def default_signal(number: int) -> None:
    """rt_sigaction(2) with SIG_DFL; also for 32 and 33, which the C library keeps to itself."""
    _syscall(SYS_rt_sigaction, f"signal {number}", number, bytes(32), None, 8)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2): a namespace's descriptor, or a pidfd and the kinds of its namespaces to join."""
    _check(_libc.setns(fd, flags), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); relative paths are the caller's, and options end at a page."""
    result = _libc.mount(_path(source), _path(target), _path(kind), flags, _path(options))
    _check(result, target)


def detach(path: str) -> None:
    """umount2(2) with MNT_DETACH."""
    _check(_libc.umount2(_path(path), MNT_DETACH), path)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _syscall(SYS_pivot_root, new, _path(new), _path(old))


def open_tree(fd: int, path: str, flags: int = 0) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a copy of the mount at `path`, attached nowhere yet."""
    flags |= OPEN_TREE_CLONE | os.O_CLOEXEC | (0 if path else AT_EMPTY_PATH)
    return _syscall(SYS_open_tree, path, fd, _path(path), flags)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """move_mount(2) of one descriptor onto another; no path is looked up."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _syscall(SYS_move_mount, "move_mount", mount_fd, b"", target_fd, b"", flags)


def make_private(mount_fd: int, *, read_only: bool) -> None:
    """mount_setattr(2): this mount and all below it propagate nothing, and can be made read-only."""
    attributes = _MountAttr(attr_set=MOUNT_ATTR_RDONLY if read_only else 0, propagation=MS_PRIVATE)
    flags = AT_EMPTY_PATH | AT_RECURSIVE
    size = ctypes.sizeof(attributes)
    _syscall(SYS_mount_setattr, "mount_setattr", mount_fd, b"", flags, ctypes.byref(attributes), size)


def new_mount(kind: str, attributes: int = 0, **options: str) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a new file system, attached nowhere yet."""
    context = _syscall(SYS_fsopen, kind, _path(kind), 1)
    try:
        for key, value in options.items():
            _syscall(SYS_fsconfig, kind, context, FSCONFIG_SET_STRING, _path(key), _path(value), 0)
        _syscall(SYS_fsconfig, kind, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(SYS_fsmount, kind, context, 1, attributes)
    finally:
        os.close(context)


def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2). Any mount or rename on the machine meanwhile makes ".." uncertain (EAGAIN): tried again."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    for _ in range(RETRIES):
        try:
            return _syscall(SYS_openat2, path, fd, _path(path), ctypes.byref(how), ctypes.sizeof(how))
        except BlockingIOError as error:
            uncertain = error
    raise uncertain


def prctl(option: int, *args: int) -> None:
    """prctl(2)."""
    _check(_libc.prctl(option, *args, *(0,) * (4 - len(args))), f"prctl {option}")


def capset(mask: int) -> None:
    """capset(2): permitted and effective become `mask`, inheritable nothing (CVE-2022-24769)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _syscall(SYS_capset, "capset", ctypes.byref(header), ctypes.byref(data))
