"""What makes a container safer than its namespaces alone: called from the steps of enter.py by name.

A container would run without any of this, and somebody in it would own the host.
"""

import os
import sys as python

from tinyo_runtime.spawner import mounts, users
from tinyo_runtime.spawner import syscalls as sys

#: The default capabilities of podman (containers-common): chown, dac_override, fowner, fsetid, kill,
#: setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap.
DEFAULT_CAPABILITIES = 0x800405FB
LAST_CAPABILITY = 40

#: What the OCI runtime specification's implementations hide and protect by default, by mount.
MASKED = {
    "/proc": ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi",
              "timer_list", "timer_stats"),
    "/sys": ("devices/virtual/powercap", "firmware"),
}  # fmt: skip
READ_ONLY = {"/proc": ("bus", "fs", "irq", "sys", "sysrq-trigger")}

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


def protect_spawner() -> None:
    """A mount namespace of our own in which the interpreter cannot be written to (CVE-2019-5736)."""
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount("", "/", "", sys.MS_REC | sys.MS_SLAVE)
    for folder in {"/usr", python.prefix, python.base_prefix}:
        copy = sys.open_tree(-100, folder)
        sys.make_private(copy, read_only=True)
        target = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        sys.move_mount(copy, target)
        os.close(copy)
        os.close(target)


def be_unreadable() -> None:
    """Nobody inside of a container that we join may look at us before exec (CVE-2016-9962)."""
    sys.prctl(PR_SET_DUMPABLE, 0)


def protect_paths(mount: str) -> None:
    """Hides and write-protects the parts of /proc and /sys that are the host's (CVE-2025-31133)."""
    for name in MASKED.get(mount, ()):
        mounts.mask(f"{mount}/{name}")
    for name in READ_ONLY.get(mount, ()):
        mounts.write_protect(f"{mount}/{name}")


def drop_privileges(user: str, env: dict[str, str]) -> None:
    """User, groups and all five capability sets, in the order in which each still may be changed."""
    uid, groups, home = users.lookup(user)
    for capability in range(LAST_CAPABILITY + 1):
        if not DEFAULT_CAPABILITIES >> capability & 1:
            sys.prctl(PR_CAPBSET_DROP, capability)
    for fd in (0, 1, 2):  # so that /dev/stdout can be opened again by this user
        os.fchown(fd, uid, groups[0])
    os.setgroups(groups)
    os.setresgid(groups[0], groups[0], groups[0])
    os.setresuid(uid, uid, uid)
    sys.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    sys.capset(DEFAULT_CAPABILITIES if uid == 0 else 0)
    sys.prctl(PR_SET_NO_NEW_PRIVS, 1)
    env.setdefault("HOME", home)
