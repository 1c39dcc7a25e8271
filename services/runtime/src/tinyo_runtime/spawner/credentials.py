"""Who a process of a bundle becomes, and what it may do then; the spawner's own containers have `harden` for that.

`process` is what a plan says: uid, gid, groups, umask, capabilities (masks by set), rlimits (number, soft, hard),
no_new_privileges, oom_score_adj, seccomp_flags.
"""

import binascii
import ctypes
import os
import resource
import stat
import struct
from pathlib import Path
from typing import Any

from tinyo_runtime.spawner import harden, users
from tinyo_runtime.spawner import syscalls as sys


def permitted() -> int:
    """Our own capabilities (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))


PR_SET_KEEPCAPS, PR_CAP_AMBIENT_RAISE = 8, 2
#: CAP_SYS_ADMIN and CAP_SYS_RESOURCE: a filter of system calls without no_new_privs, and limits that are raised. Nobody
#: can look at the process while it has them (`harden.be_unreadable`), and the program never does. Those of them that we
#: have ourselves: in a container of somebody else's some may be missing.
LATE = (1 << 21 | 1 << 24) & permitted()


def set_oom_score(process: dict[str, Any]) -> None:
    """proc_pid_oom_score_adj(5), by the host's /proc."""
    if process.get("oom_score_adj") is not None:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, str(process["oom_score_adj"]).encode())
        os.close(fd)


def become(process: dict[str, Any], *, own_terminal: bool, own_pipes: bool) -> str:
    """User, groups and capabilities; the home folder of the user as the container's own files have it."""
    uid, gid, masks = process["uid"], process["gid"], process["capabilities"]
    home = users.lookup(str(uid))[2]
    for capability in range(harden.LAST_CAPABILITY + 1):
        if not masks["bounding"] >> capability & 1:
            harden.prctl(harden.PR_CAPBSET_DROP, capability)
    for fd in (
        0,
        1,
        2,
    ):  # so that /dev/stdout can be opened again by this user; what else is the host's stays so
        if own_terminal or (own_pipes and stat.S_ISFIFO(os.fstat(fd).st_mode)):
            os.fchown(fd, uid, -1)
    harden.prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups(process["groups"])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    harden.prctl(harden.PR_SET_DUMPABLE, 0)  # which another user may have changed (fs.suid_dumpable)
    harden.prctl(PR_SET_KEEPCAPS, 0)
    os.umask(process["umask"])
    harden.prctl(harden.PR_CAP_AMBIENT, harden.PR_CAP_AMBIENT_CLEAR_ALL)
    set_capabilities(masks, late=LATE, effective=masks["effective"])
    return home


def finish(process: dict[str, Any], program: str) -> None:
    """Limits, ambient capabilities, no_new_privs, and the filter: with no_new_privs at the very end, since it needs no
    capability then; without, before the last capabilities go."""
    masks = process["capabilities"]
    set_capabilities(masks, late=LATE, effective=masks["effective"] | LATE)
    for number, soft, hard in process["rlimits"]:
        resource.setrlimit(number, (soft, hard))
    for capability in range(harden.LAST_CAPABILITY + 1):
        if masks["ambient"] >> capability & 1:
            harden.prctl(harden.PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)
    if program and not process["no_new_privileges"]:
        filter_calls(program, process["seccomp_flags"])
    set_capabilities(masks, late=0, effective=masks["effective"])
    if process["no_new_privileges"]:
        harden.prctl(harden.PR_SET_NO_NEW_PRIVS, 1)
        if program:
            filter_calls(program, process["seccomp_flags"])


def set_capabilities(masks: dict[str, int], *, late: int, effective: int) -> None:
    """capset(2): the three sets that it knows."""
    sets = (effective, masks["permitted"] | late, masks["inheritable"])
    words = [one & 0xFFFFFFFF for one in sets] + [one >> 32 for one in sets]
    header = struct.pack("2I", 0x20080522, 0)
    sys.syscall(harden.SYS_capset, "capset", header, struct.pack("6I", *words))


def filter_calls(program: str, flags: int) -> None:
    """seccomp(2) with a program of bpf(4) in base64."""
    data = binascii.a2b_base64(program)
    code = ctypes.create_string_buffer(data, len(data))
    head = struct.pack("HQ", len(data) // 8, ctypes.addressof(code))  # struct sock_fprog
    sys.syscall(harden.SYS_seccomp, "seccomp", harden.SECCOMP_SET_MODE_FILTER, flags, head)
