"""What a bundle mounts and makes in its root, which is the working directory here; every path is looked up below it."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from typing import Any

from tinyo_runtime.spawner import copyup, mounts, system
from tinyo_runtime.spawner import syscalls as sys

FSCONFIG_SET_FLAG = 0
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
RESOLVE_NO_XDEV, RESOLVE_BENEATH = 0x01, 0x08
#: What programs trust to be the kernel's: an image that has a link in their place is refused.
KERNELS = ("proc", "sysfs")


def bring_up_loopback() -> None:
    """netdevice(7): in a new network namespace it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        (flags,) = struct.unpack_from("H", request, 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def mount(told: dict[str, Any], fds: list[int]) -> None:
    """One mount: a detached one that the caller made (`fd`), or a new file system of this `kind`. `attributes` and
    `propagation` are as in mount_setattr(2)."""
    target = told["target"]
    if "fd" in told:
        mounts.attach(fds[told["fd"]], target, make="folder" if told["folder"] else "file")
        return
    new = make(told["kind"], told["attributes"] & ~sys.MOUNT_ATTR_RDONLY, told["options"])
    if told["copy_up"]:
        copyup.copy(target, new)
    for name in told.get("folders", ()):
        os.mkdir(name, 0o755, dir_fd=new)
    for name, to in told.get("links", ()):
        os.symlink(to, name, dir_fd=new)
    set_attributes(new, target, told["attributes"] & sys.MOUNT_ATTR_RDONLY, told["propagation"])
    mounts.attach(new, target, make="folder", links=told["kind"] not in KERNELS)


def make(kind: str, attributes: int, options: list[tuple[str, str | None]]) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a new file system, attached nowhere yet; None is a flag's value."""
    context = sys.syscall(system.SYS_fsopen, kind, sys.path_bytes(kind), 1)
    try:
        for key, value in options:
            about = f"{kind}: {key}" if value is None else f"{kind}: {key}={value}"
            command = FSCONFIG_SET_FLAG if value is None else system.FSCONFIG_SET_STRING
            text = None if value is None else sys.path_bytes(value)
            sys.syscall(system.SYS_fsconfig, about, context, command, sys.path_bytes(key), text, 0)
        sys.syscall(system.SYS_fsconfig, kind, context, system.FSCONFIG_CMD_CREATE, None, None, 0)
        return sys.syscall(system.SYS_fsmount, kind, context, 1, attributes)
    finally:
        os.close(context)


def set_attributes(fd: int, about: str, attributes: int, propagation: int, flags: int = 0) -> None:
    """mount_setattr(2) of a mount that is attached nowhere yet."""
    if attributes or propagation:
        told = struct.pack("4Q", attributes, 0, propagation, 0)
        sys.syscall(sys.SYS_mount_setattr, about, fd, b"", sys.AT_EMPTY_PATH | flags, told, len(told))


def make_node(path: str, mode: int, device: int, uid: int, gid: int) -> None:
    """mknod(2); what is there already must be the same."""
    parent, name = os.path.split(path)
    folder = mounts.open_in_root(parent, make="folder", links=False)
    try:
        os.mknod(name, mode, device, dir_fd=folder)
        os.chmod(name, stat.S_IMODE(mode), dir_fd=folder)
        os.chown(name, uid, gid, dir_fd=folder)
    except FileExistsError:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(mode) or found.st_rdev != device:
            raise OSError(errno.EEXIST, "something else is there", path) from None
    finally:
        os.close(folder)


def make_link(path: str, to: str) -> None:
    """symlink(2); what is there already stays."""
    parent, name = os.path.split(path)
    folder = mounts.open_in_root(parent, make="folder", links=False)
    with contextlib.suppress(FileExistsError):
        os.symlink(to, name, dir_fd=folder)
    os.close(folder)


def write_sysctls(values: dict[str, str]) -> None:
    """Through a /proc that is attached nowhere, which nobody can have put anything else into (CVE-2025-52881)."""
    if not values:
        return
    proc = system.new_mount("proc")
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | sys.RESOLVE_NO_MAGICLINKS | sys.RESOLVE_NO_SYMLINKS
    for path, value in values.items():
        fd = sys.openat2(proc, f"sys/{path}", os.O_WRONLY, resolve)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{path}={value}") from None
        finally:
            os.close(fd)
    os.close(proc)
