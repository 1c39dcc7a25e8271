"""The user namespace of an OCI bundle (user_namespaces(7)): it is made with the others and owns them, as a bundle means it.

What its process may not do for itself in there, the spawner does from outside, with the host's privileges. A plan says in
`bundle.user`: `uid` and `gid`, the maps (first inside, first outside, how many), and `owner`, the host's number of the
user.
"""

import os
import resource
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinyo_runtime.spawner import harden
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.userns import CLONE_NEWUSER, write_map

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan


def flag(told: dict[str, Any]) -> int:
    """Of clone(2), for the first process, or of setns(2) for a further one."""
    return CLONE_NEWUSER if "user" in told else 0


def prepare(pid: int, told: dict[str, Any], stdio: Sequence[int]) -> None:
    """Its ids, limits that it may then lower, and pipes that are its user's: while it waits for its plan. OSError."""
    if "user" not in told:
        return
    if "container" not in told:
        for kind in ("uid", "gid"):
            write_map(f"/proc/{pid}/{kind}_map", told["user"][kind])
    for number, _, hard in told["process"]["rlimits"]:
        soft, ours = resource.prlimit(pid, number)
        if ours != resource.RLIM_INFINITY and not 0 <= hard <= ours:
            resource.prlimit(pid, number, (soft, hard))
    for fd in filter(lambda fd: stat.S_ISFIFO(os.fstat(fd).st_mode), stdio):
        os.fchown(fd, told["user"]["owner"], -1)


def become_root(plan: "Plan") -> None:
    """Of the namespace: from here on what it makes is its own."""
    if "user" in plan.message["bundle"]:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        harden.prctl(harden.PR_SET_DUMPABLE, 0)  # which another user may have changed (fs.suid_dumpable)


def join(fd: int, told: dict[str, Any]) -> None:
    """The mounts of a running container, and its user namespace at the same time: neither could be joined after the
    other (setns(2))."""
    sys.setns(fd, sys.CLONE_NEWNS | flag(told))
