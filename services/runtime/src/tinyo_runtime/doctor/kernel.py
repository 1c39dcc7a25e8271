"""The kernel, and what it must be able to do."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime.doctor import Machine, impossible, off, on
from tinyo_runtime.spawner import syscalls as sys

#: mount_setattr(2) is the newest call that nothing goes without; layers that are mapped came to overlayfs later.
OLDEST, MAPPED = (5, 12), (5, 19)
#: Numbers of calls, the same on every machine, with arguments that no kernel takes.
CALLS: dict[str, tuple[int, tuple[int | None, ...]]] = {
    "open_tree": (428, (-1, None, 0)),
    "move_mount": (429, (-1, None, -1, None, 0)),
    "fsopen": (430, (None, 0)),
    "pidfd_open": (434, (-1, 0)),
    "clone3": (435, (None, 0)),
    "close_range": (436, (1, 0, 0)),
    "openat2": (437, (-1, None, None, 0)),
    "mount_setattr": (442, (-1, None, 0, None, 0)),
}


def version() -> tuple[int, ...]:
    """Of the kernel that runs, two numbers of it."""
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


def release(machine: Machine) -> Iterator[Finding]:
    """Whether it is new enough."""
    what = f"Linux {os.uname().release}"
    oldest = ".".join(map(str, OLDEST))
    yield (
        on(what)
        if version() >= OLDEST
        else off(f"{what} is older than {oldest}", f"boot Linux {oldest} or newer")
    )


def calls(machine: Machine) -> Iterator[Finding]:
    """Those that containers are made with; refused is what a filter around TinyO itself would do."""
    missing = []
    for name, (number, arguments) in CALLS.items():
        try:
            sys.syscall(number, name, *arguments)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                missing.append(f"{name} ({os.strerror(error.errno)})")
    if missing:
        remedy = "boot a newer Linux; in a container or sandbox, let its seccomp filter allow them"
        yield off(f"not here: {', '.join(missing)}", remedy)
    else:
        yield on(", ".join(CALLS))


def overlay(machine: Machine) -> Iterator[Finding]:
    """One is mounted on the file system of the containers, with the attributes that it writes there."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=machine.state) as folder:
        for name in ("lower", "upper", "work", "root"):
            os.mkdir(f"{folder}/{name}")
        try:
            os.setxattr(f"{folder}/upper", "trusted.tinyo.doctor", b"1")
            options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
            sys.mount("overlay", f"{folder}/root", "overlay", sys.MS_NODEV, options)
        except OSError as error:
            where = f"{kind(machine.state)} at {machine.state}"
            remedy = f"`modprobe overlay`; or put {machine.settings.state} on ext4, XFS or btrfs"
            yield off(f"not on {where}: {error.strerror}", remedy)
        else:
            Path(folder, "root/file").touch()
            sys.detach(f"{folder}/root")
            yield on(f"on {kind(machine.state)} at {machine.state}")


def mapped(machine: Machine) -> Iterator[Finding]:
    """Whether the file system of the layers can be shown with other owners, as user namespaces need it."""
    from tinyo_runtime.options.ranges import chosen
    from tinyo_runtime.spawner import userns

    where = f"{kind(machine.state)} at {machine.state}"
    without = "containers do without user namespaces"
    if version() < MAPPED:
        yield impossible(f"overlayfs takes mapped layers since Linux 5.19; {without}")
        return
    try:
        first = chosen(machine.settings.userns_ids, machine.settings.instance)[0]
        namespace = userns.make(0, first, userns.IDS)
    except OSError as error:
        yield impossible(f"without user namespaces ({error.strerror}) nothing can be mapped")
        return
    mount = sys.open_tree(sys.AT_FDCWD, str(machine.state))
    try:
        userns.map_ids(mount, namespace, where, 0)
        yield on(f"on {where}")
    except OSError as error:
        yield impossible(f"not on {where} ({error.strerror}); {without}")
    finally:
        os.close(mount)
        os.close(namespace)


def kind(folder: Path) -> str:
    """Of the file system that a folder is on (proc_pid_mountinfo(5))."""
    device = os.stat(folder).st_dev
    found = "its file system"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                found = after.split()[0]
    return found
