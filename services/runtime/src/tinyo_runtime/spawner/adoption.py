"""Processes from before a restart: of the runtime, which is told what is there, or of the spawner itself."""

import os
from typing import TYPE_CHECKING

from tinyo_runtime.spawner import protocol, userns
from tinyo_runtime.spawner.failures import ProtocolError
from tinyo_runtime.spawner.process import Process

if TYPE_CHECKING:
    from tinyo_runtime.spawner.__main__ import Spawner


def report(spawner: "Spawner") -> None:
    """Tells a new runtime every process that there is, and hands it what it needs of them."""
    for process in list(spawner.processes.values()):
        if process.status < 0 and not process.failure:
            spawner.tell("started", process.id, (process.pidfd, *process.kept), pid=process.pid)
            if process.exit:
                spawner.tell("exited", process.id, **process.exit)


def adopt(spawner: "Spawner", message: protocol.Message, fds: list[int]) -> None:
    """Takes over a process of a spawner that died: pidfd and pipes come from the runtime; or makes a user namespace.
    One that is ours already stays ours, with its end: the runtime only lost the connection, or wants us to `keep` these
    descriptors instead of those that we have. ProtocolError when the message says anything else."""
    if message.get("op") == "userns":
        userns.answer(spawner, message)
        return
    if message.get("op") != "adopt":
        raise ProtocolError(f"unknown op {message.get('op')!r}")
    id, pid = str(message["id"]), int(message["pid"])
    if (own := spawner.processes.get(id)) and own.pid == pid:
        if message.get("keep"):
            own.kept, former = [os.dup(fd) for fd in fds[1:]], own.kept
            for fd in former:
                os.close(fd)
        return
    spawner.forget(id)
    pidfd, *kept = map(os.dup, fds)
    process = spawner.processes[id] = Process(pid, pidfd)
    process.id, process.kept = id, kept
    spawner.watch(pidfd, lambda: ended(spawner, process))


def ended(spawner: "Spawner", process: Process) -> None:
    """It never was our child, so we cannot say how it ended; whoever asks the kernel may know."""
    spawner.unwatch(process.pidfd)
    process.exit = {"status": -1, "signaled": False}
    spawner.tell("exited", process.id, **process.exit)
