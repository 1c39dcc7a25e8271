"""Processes of a container that the kernel killed because there was no memory for them (oom_kill of cgroups)."""

import contextlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime import hierarchies

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers

#: Of v2 and v1.
FILES = ("memory.events", "memory.oom_control")
#: The services are the last to be killed when the machine has no memory left (proc_pid_oom_score_adj(5)).
PROTECTED = -900


def protect() -> None:
    """Lets the kernel choose somebody else than us. What we start has to give that up by itself."""
    with contextlib.suppress(PermissionError):  # whoever runs us in a container has not allowed it
        Path("/proc/self/oom_score_adj").write_text(str(PROTECTED))


def watch(containers: "Containers", container: "Container", resources: AsyncExitStack) -> None:
    """When the container ends its exit says whether that was for want of memory: before its cgroup is taken away."""
    resources.callback(_tell, containers, container)


def _tell(containers: "Containers", container: "Container") -> None:
    process = container.process
    if not process or not process.exited.done():
        return  # it was never started
    exit = process.exited.result()
    exit.oom_killed = exit.code != 0 and kills(containers.cgroups.name, container.config.id) > 0


def kills(instance: str, id: str) -> int:
    """How many were killed so far; 0 where the kernel counts no memory."""
    place = hierarchies.controllers().get("memory")
    for file in FILES if place else ():
        with contextlib.suppress(FileNotFoundError):
            lines = (place.hierarchy / instance / id / file).read_text().splitlines()  # type: ignore[union-attr]
            return int(dict(line.split() for line in lines).get("oom_kill", 0))
    return 0
