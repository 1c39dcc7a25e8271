"""What stands between a container and the kernel."""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime.doctor import Machine, impossible, off, on

KEYCTL_GET_KEYRING_ID, SESSION = 0, -3
#: The oldest interface of Landlock that is of use: hard links between folders.
LANDLOCK = 2
LIMIT = Path("/proc/sys/user/max_user_namespaces")


def user_namespaces(machine: Machine) -> Iterator[Finding]:
    """Whether one can be made, and whether containers get one that do not ask."""
    from tinyo_runtime.options.ranges import chosen
    from tinyo_runtime.spawner import userns

    limit = int(LIMIT.read_text()) if LIMIT.exists() else None
    first = chosen(machine.settings.userns_ids, machine.settings.instance)[0]
    try:
        namespace = userns.make(0, first, userns.IDS)
    except OSError as error:
        if limit is None or error.errno == errno.EINVAL:
            yield impossible("this kernel has none: root of a container is root's id of the host, fenced in")
        else:
            remedy = "sysctl -w user.max_user_namespaces=15000"
            yield off(f"{error.strerror}: user.max_user_namespaces is {limit}", remedy)
        return
    os.close(namespace)
    if limit == 0:  # made by somebody who does not count
        yield off("user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000")
    else:
        yield on(f"at most {limit} (user.max_user_namespaces)")
    file = f"/etc/{machine.settings.instance}/runtime.toml"
    name = "user namespaces by default"
    if machine.settings.userns.lower() == "true":
        yield on(f"userns = true in {file}", name=name)
    else:
        remedy = f'write userns = "true" in {file}, or `userns: true` in a Statefile'
        yield off("containers get one that ask for it", remedy, name=name, optional=True)


def seccomp(machine: Machine) -> Iterator[Finding]:
    """The library that makes the filter, and what the kernel can do with one."""
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists():
        yield off("this kernel has no seccomp filters", "boot one with CONFIG_SECCOMP_FILTER")
        return
    from tinyo_runtime.options import filters

    try:
        instructions = len(filters.compiled()) // 8
    except OSError as error:
        yield off(f"the filter cannot be made, and no container starts: {error}", "apt install libseccomp2")
        return
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint)
    version = ".".join(map(str, library.seccomp_version()[:3]))
    yield on(f"libseccomp {version}, a filter of {instructions} instructions; {actions.read_text().strip()}")


def apparmor(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel has it, and containers that run are in a profile."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if not enabled.exists() or enabled.read_text().strip() != "Y":
        yield impossible("this kernel has none, or it was booted without")
        return
    labels = set[str]()
    for record in machine.records:
        label = Path(f"/proc/{record.state.pid}/attr/current")
        if record.state.pid and label.exists():
            labels.add(label.read_text().strip(" \0\n"))
    if labels and "unconfined" not in labels:
        yield on(f"containers run in {', '.join(sorted(labels))}")
    else:
        what = "containers run unconfined" if labels else "no container runs, so that none is in a profile"
        yield off(f"the kernel has it; {what}", "", optional=True)


def landlock(machine: Machine) -> Iterator[Finding]:
    """Around the processes that unpack images (landlock(7))."""
    from tinyo_runtime.unpack import landlock

    version = landlock.version()
    if version >= LANDLOCK:
        yield on(f"version {version}, around the processes that unpack images")
    else:
        lacking = f"version {version} is too old" if version else "this kernel has none"
        yield impossible(f"{lacking}; those that unpack are confined by their user and namespaces alone")


def keyrings(machine: Machine) -> Iterator[Finding]:
    """Each container has a session of its own, and the calls are refused in it."""
    from tinyo_runtime.spawner import harden, syscalls

    try:
        syscalls.syscall(harden.SYS_keyctl, "keyctl", KEYCTL_GET_KEYRING_ID, SESSION, 0)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            yield impossible("this kernel keeps no keys, so that there are none to guard")
            return
    yield on("containers have sessions of their own, and no calls to look at others")
