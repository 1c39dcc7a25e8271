"""What a container gets of the host's devices, as detached mounts that are attached in it.

A node is mounted over a file, and the mount cannot be written to, which concerns the node alone: what is behind it can
be, but nobody in the container changes the mode and the owner that it has on the host. In a user namespace, where
mknod(2) is refused, it is the same.
"""

import os
import stat
import struct
from typing import Any

from tinyo_runtime.devices.cdi import Unusable
from tinyo_runtime.devices.rules import Rule, of_node
from tinyo_runtime.spawner import syscalls

#: Options of a mount, and those that it has anyway (mount_setattr(2)).
ATTRIBUTES = {"ro": 0x01, "nosuid": 0x02, "nodev": 0x04, "noexec": 0x08}
USUAL = {"rw", "bind", "rbind", "private", "rprivate", "suid", "dev", "exec"}


def opened(path: str, attributes: int = ATTRIBUTES["ro"]) -> int:
    """A mount of what is there now, whatever comes there later. OSError."""
    fd = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.AT_RECURSIVE)
    try:
        # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
        how = struct.pack("4Q", attributes, 0, syscalls.MS_PRIVATE, 0)
        flags = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        syscalls.syscall(syscalls.SYS_mount_setattr, path, fd, b"", flags, how, len(how))
        return fd
    except BaseException:
        os.close(fd)
        raise


def rule(fd: int, permissions: str) -> Rule | None:
    """What allows it; None when it is no device."""
    status = os.fstat(fd)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return of_node(status, permissions) if is_device else None


def check(fd: int, entry: dict[str, Any]) -> None:
    """A node is given as it is; a CDI file that wants it to be something else raises Unusable."""
    status = os.fstat(fd)
    is_so = {
        "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
    for key, value in is_so.items():
        wanted = entry.get(key, value)
        wanted = "c" if wanted == "u" else wanted  # mknod(1) has two names for it
        if wanted != value:
            raise Unusable(f"{entry['path']}: {key} is {value!r} on this host, and not {wanted!r}")
    if set(str(entry.get("permissions", ""))) - set("rwm"):
        raise Unusable(f"{entry['path']}: permissions {entry['permissions']!r} are not some of 'rwm'")


def attributes(entry: dict[str, Any]) -> int:
    """Of a mount of a CDI file. Raises Unusable."""
    if entry.get("type", "bind") not in ("", "bind", "none"):
        raise Unusable(f"{entry['containerPath']}: mounts of type {entry['type']!r} are not done")
    options = [str(option) for option in entry.get("options") or []]
    if others := [option for option in options if option not in ATTRIBUTES and option not in USUAL]:
        raise Unusable(f"{entry['containerPath']}: the mount option {others[0]!r} is not known")
    return sum({ATTRIBUTES.get(option, 0) for option in options})
