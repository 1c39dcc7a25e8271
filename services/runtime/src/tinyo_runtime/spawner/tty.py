"""A terminal for a process in a container: one of the container's own devpts, never one of the host's.

Its master is opened where only the kernel makes files, and goes to the runtime over the socket `console` of the plan; its
slave comes from the master itself (ioctl_tty(2), TIOCGPTPEER), because whatever a path leads to is the container's to
choose (CVE-2025-52565). Two steps, before and after the one that takes 0, 1 and 2.

The slave of a container's first process is /dev/console as well. Where that is to be is known from before anything of the
Statefile or of the image could be there: an empty file in the container's own /dev, by its descriptor.
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import sys as python
import termios
from typing import TYPE_CHECKING

from tinyo_runtime.spawner import mounts, protocol
from tinyo_runtime.spawner import syscalls as sys

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan

#: Where it is mounted in every container; its root, its multiplexer, and what statfs(2) says of it.
DEVPTS, MULTIPLEXER, MAGIC = "/dev/pts", "ptmx", 0x1CD1
RESOLVE_NO_XDEV, RESOLVE_BENEATH = 0x01, 0x08
TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
#: More than a struct statfs has, which begins with the type of the file system.
STATFS = 256


def make_console(plan: "Plan") -> None:
    """With `terminal` in the plan: the file that the terminal will lie on. Must come while /dev is as it was made."""
    if "terminal" in plan.message:
        dev = mounts.open_in_root("/dev", links=False)
        os.mknod("console", 0o600, dir_fd=dev)
        plan.message["console"] = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev)
        os.close(dev)


def open_terminal(plan: "Plan") -> None:
    """With `terminal` in the plan: the master is the runtime's, and the slave becomes 0, 1 and 2."""
    if told := plan.message.get("terminal"):
        master = open_master()
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        size = struct.pack("HHHH", told["rows"], told["columns"], 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        with socket.socket(fileno=plan.fds[told["console"]]) as console:
            protocol.send(console, {"op": "terminal"}, [master])
        plan.stdio = [slave] * 3
        if "console" in plan.message:
            sys.move_mount(sys.open_tree(slave, ""), plan.message["console"], "/dev/console")


def take_terminal(plan: "Plan") -> None:
    """It controls the new session: Ctrl-C is a signal, and whoever hangs up ends it (TIOCSCTTY)."""
    if "terminal" in plan.message:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def open_master() -> int:
    """Descriptor of a new master. OSError when what is mounted there is not devpts: nothing else is ever opened, since
    a device or a pipe of an image could do anything with that."""
    about = f"{DEVPTS}/{MULTIPLEXER}"
    folder = sys.openat2(sys.AT_FDCWD, DEVPTS, os.O_PATH | os.O_DIRECTORY, sys.RESOLVE_NO_SYMLINKS)
    if kind(folder) != MAGIC:
        raise OSError(errno.ENODEV, "not devpts", DEVPTS)
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | sys.RESOLVE_NO_SYMLINKS
    master = sys.openat2(folder, MULTIPLEXER, os.O_RDWR | os.O_NOCTTY, resolve)
    os.close(folder)
    found = os.fstat(master)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(5, 2):
        raise OSError(errno.ENODEV, "not the multiplexer of terminals", about)
    return master


def kind(fd: int) -> int:
    """fstatfs(2): the type of the file system that a descriptor is on."""
    buffer = ctypes.create_string_buffer(STATFS)
    sys.check(sys.libc.fstatfs(fd, buffer), "fstatfs")
    return int.from_bytes(buffer.raw[: struct.calcsize("l")], python.byteorder)
