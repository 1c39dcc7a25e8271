"""Programs that a bundle wants to be run while its container comes and goes, with its state as their input (OCI runtime
specification, "POSIX-platform Hooks"). They are as trusted as the bundle."""

import errno
import json
import os
import select
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from tinyo_runtime.spawner import harden

#: A hook as a bundle has it: path, and maybe args, env and timeout in seconds.
Hook = Mapping[str, Any]


def run_all(kind: str, hooks: Mapping[str, Sequence[Hook]], state: Mapping[str, Any]) -> None:
    """Those of a kind, one after the other. The first that fails ends it: OSError."""
    for hook in hooks.get(kind, ()):
        run(kind, hook, state)


def run(kind: str, hook: Hook, state: Mapping[str, Any]) -> None:
    """One hook. OSError says which and why. Only for a process with one thread."""
    about = f"{kind} hook {hook['path']}"
    pid = os.fork()
    if pid == 0:
        try:
            _become(hook, state)
        finally:  # whatever happens, there is one of us
            os._exit(127)
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        in_time = poll.poll(hook["timeout"] * 1000 if hook.get("timeout") else None)
        if not in_time:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ended = os.waitid(os.P_PID, pid, os.WEXITED)
    finally:
        os.close(pidfd)
    if not in_time:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), f"{about} ({hook['timeout']} s)")
    if ended and (ended.si_code, ended.si_status) != (os.CLD_EXITED, 0):
        how = "exit code" if ended.si_code == os.CLD_EXITED else "signal"
        raise OSError(errno.ECANCELED, "failed", f"{about}: {how} {ended.si_status}")


def _become(hook: Hook, state: Mapping[str, Any]) -> None:
    """A file as input does not block, however much there is to say."""
    fd = os.memfd_create("state")
    os.write(fd, json.dumps(state).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    os.dup2(fd, 0)
    harden.default_signals()
    env = dict(entry.split("=", 1) for entry in hook.get("env") or [])
    os.execve(hook["path"], hook.get("args") or [hook["path"]], env)
