"""Limits are in force before the container's first instruction: its process joins cgroups that have them."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from tinyo_runtime import cgroups, hierarchies, limits, oom
from tinyo_runtime.options import Start

#: Controllers of v1 that a container joins only for the sake of a limit.
FURTHER = ("cpuset", "io")


async def part(start: Start) -> None:
    """Sets the limits, and has the process join what it would not join without them."""
    id, made = start.container.config.id, start.containers.cgroups
    resources = start.container.config.spec.resources
    if not start.joins:
        oom.watch(start.containers, start.container, start.resources)
        limits.check(resources)
        for root in limits.further(made, resources):
            make(root, id, start.resources)
        limits.write(made, id, resources)
    start.plan["cgroups"] = [*start.plan["cgroups"]]
    for folder in further(made, id):
        fd = os.open(folder / "tasks", os.O_WRONLY | os.O_CLOEXEC)
        start.plan["cgroups"].append(start.hand(fd))


def further(made: cgroups.Cgroups, id: str) -> Iterator[Path]:
    """The cgroups that a container has and not every container."""
    known = hierarchies.controllers()
    for root in dict.fromkeys(known[name].hierarchy / made.name for name in FURTHER if name in known):
        if root not in made.roots and (root / id).exists():
            yield root / id


def resume(made: cgroups.Cgroups, id: str, resources: AsyncExitStack) -> None:
    """What an earlier runtime made is undone by this one."""
    for folder in further(made, id):
        resources.push_async_callback(remove, folder)


def make(root: Path, id: str, resources: AsyncExitStack) -> None:
    """A cgroup of v1 in a hierarchy that only some join. One of cpuset takes nobody in before it has both lists."""
    resources.push_async_callback(remove, root / id)
    for folder in (root, root / id):
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder / name).exists() and not (folder / name).read_text().strip():
                cgroups.write(folder / name, (folder.parent / name).read_text().strip())


async def remove(folder: Path) -> None:
    """Undoes `make`; the instance's own goes with its last container."""
    await cgroups.removed(folder)
    with contextlib.suppress(OSError):  # another container is in it
        folder.parent.rmdir()
