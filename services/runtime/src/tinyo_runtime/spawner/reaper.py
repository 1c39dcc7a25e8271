"""`init`: a program of the host is the first process of a container, and the command its child.

It reaps orphans, passes signals on, and exits as the command does. It is executed by its descriptor, from a read-only
mount that is attached nowhere: nothing of it is in the container's files, and a container that opens what its first
process runs cannot write to it (docs/decisions/0016-the-first-process.md).
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

from tinyo_runtime.spawner import harden

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan

#: Where its descriptor waits for exec: after that of the status pipe.
PLACE = 4


def keep(plan: "Plan") -> None:
    """With `init` in the plan: of all other descriptors of the host none is left when it is executed."""
    if "init" in plan.message:
        os.dup2(plan.fds[plan.message["init"]], PLACE, inheritable=False)


def execute(plan: "Plan") -> None:
    """The last step with `init`. Whether the command can be executed is seen before, because a failure of the reaper
    would look as if the command had begun."""
    if "init" in plan.message:
        check(plan.argv[0], plan.env.get("PATH", os.defpath))
        harden.default_signals()
        os.execve(PLACE, ["init", "--", *plan.argv], plan.env)


def check(program: str, path: str) -> None:
    """Raises what execvp(3) would. A container that changes its files meanwhile only deceives itself."""
    failure: int = errno.ENOENT
    for folder in [""] if "/" in program else path.split(":"):
        try:
            found = os.stat(os.path.join(folder, program))
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and os.access(os.path.join(folder, program), os.X_OK):
            return
        failure = errno.EACCES
    raise OSError(failure, os.strerror(failure), program)
