"""A container's user namespace (user_namespaces(7)): its root is nobody on the host.

The namespace is made before the container, since layers and mounts are mapped to it while they are attached nowhere
(mount_setattr(2)). Its process does with the host's privileges whatever needs them, and enters it last: it owns no
other namespace, so that no capability there counts for anything but its own ids (docs/decisions/0018-user-namespaces.md).

A plan says in `userns`: `namespace`, a descriptor of it, or of the pidfd of the container; `first`, the host's id of
root; and for a new container `layers`, a descriptor of the folder of all layers, mapped, and `own_network`.
"""

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime.spawner import failures, harden, mounts
from tinyo_runtime.spawner import syscalls as sys

if TYPE_CHECKING:
    from tinyo_runtime.spawner import protocol
    from tinyo_runtime.spawner.__main__ import Spawner
    from tinyo_runtime.spawner.enter import Plan

#: Ids of one container: those that programs expect, "nobody" (65534) among them.
IDS = 1 << 16
#: An attribute of a container's writable layer (xattr(7)): the first of the host's ids that its files belong to.
RANGE = "trusted.tinyo.userns"

CLONE_NEWUSER = 0x10000000
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
MOUNT_ATTR_IDMAP = 0x00100000
MS_NOSUID, MS_NOEXEC, MS_REMOUNT = 2, 8, 32
#: The group of terminals, in every distribution.
TTY = 5
#: What capabilities would do in a network namespace that is the container's own.
NETWORK = {"ip_unprivileged_port_start": "0", "ping_group_range": "{first} {last}"}


def recorded(upper: str | Path) -> int:
    """The first id of the container with that writable layer; 0 when it has no user namespace. OSError."""
    try:
        return int(os.getxattr(upper, RANGE))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return 0


def make(inside: int, outside: int, ids: int) -> int:
    """Descriptor of a new namespace whose ids from `inside` on are ours from `outside` on. OSError.

    It lives as long as the descriptor: the process that it was made with has ended before this returns.
    """
    pid, pidfd = sys.clone(CLONE_NEWUSER)
    if pid == 0:
        os._exit(0)
    try:
        for kind in ("uid", "gid"):
            write_map(f"/proc/{pid}/{kind}_map", [(inside, outside, ids)])
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pidfd)
        os.waitid(os.P_PID, pid, os.WEXITED)


def write_map(path: str, ranges: Sequence[Sequence[int]]) -> None:
    """All lines at once, as the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, "".join(f"{inside:d} {outside:d} {ids:d}\n" for inside, outside, ids in ranges).encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def answer(spawner: "Spawner", message: "protocol.Message") -> None:
    """Makes a namespace for the runtime, which has threads and so cannot (docs/spawner-protocol.md)."""
    id = str(message["id"])
    with failures.of_clone(spawner, id):
        namespace = make(message["inside"], message["outside"], message["ids"])
        spawner.tell("userns", id, (namespace,))
        os.close(namespace)


def map_ids(mount: int, namespace: int, about: str, flags: int = sys.AT_RECURSIVE) -> None:
    """mount_setattr(2): through this mount, attached nowhere yet, id N on the disk is id N of the namespace."""
    attributes = struct.pack("4Q", MOUNT_ATTR_IDMAP, 0, 0, namespace)
    syscall = (sys.SYS_mount_setattr, about, mount, b"", sys.AT_EMPTY_PATH | flags)
    sys.syscall(*syscall, attributes, len(attributes))


def map_layers(plan: "Plan") -> None:
    """The folder of the layers becomes the mapped one: one mount for all of them, hidden below the root."""
    if told := plan.message.get("userns"):
        mounts.attach(plan.fds[told["layers"]], "/layers", make="folder")
        plan.message["layers_dir"] = f"{plan.folder}/layers"


def give_devices(plan: "Plan") -> None:
    """What was mounted for everybody belongs to the container's root, and so does what is made for mounts: in one that
    is mapped nobody else could make anything (EOVERFLOW)."""
    if told := plan.message.get("userns"):
        first = int(told["first"])
        options = f"gid={first + TTY},mode=620,ptmxmode=666"
        sys.mount("", "dev/pts", "", MS_REMOUNT | MS_NOSUID | MS_NOEXEC, options)
        for name in (".", *os.listdir("dev"), "pts/ptmx"):
            os.chown(f"dev/{name}", first, first, follow_symlinks=False)
        if told["own_network"]:
            for name, value in NETWORK.items():  # the host's /proc still, which shows our network namespace
                Path("/proc/sys/net/ipv4", name).write_text(
                    value.format(first=first, last=first + told["ids"] - 1)
                )
        make_files_as(first)


def make_files_as(owner: int) -> None:
    """setfsuid(2) and setfsgid(2), which take no privileges away (capabilities(7), SECBIT_NO_SETUID_FIXUP)."""
    harden.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    sys.libc.setfsuid(owner)
    sys.libc.setfsgid(owner)
    harden.prctl(PR_SET_SECUREBITS, 0)


def enter_userns(plan: "Plan") -> None:
    """From here on the process is root of the container, and nobody on the host; its pipes are its own."""
    if told := plan.message.get("userns"):
        for fd in filter(harden.is_own, plan.stdio):
            os.fchown(fd, told["first"], -1 if os.isatty(fd) else told["first"])
        sys.setns(plan.fds[told["namespace"]], CLONE_NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
