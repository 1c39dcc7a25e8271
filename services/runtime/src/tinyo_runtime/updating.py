"""What a container may take of the machine, changed while it runs."""

from pathlib import Path

from tinyo.v1.resources_pb2 import Resources

from tinyo_runtime import limits, pausing
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import limits as joining


async def update(containers: Containers, id: str, resources: Resources) -> None:
    """Sets all limits, at once if it runs; its next process has them as well. LIMIT_UNSUPPORTED or LIMIT_REFUSED, and
    then it has those that it had."""
    container = containers.get(id)
    async with container.lock:
        before = Resources.FromString(container.config.spec.resources.SerializeToString())
        limits.check(resources)
        if container.process:
            change(containers, container, before, resources)
        for config in (container.config, container.state.config):
            config.spec.resources.CopyFrom(resources)
        containers.changed(container, container.state.phase)


def change(containers: Containers, container: Container, before: Resources, resources: Resources) -> None:
    """Tells the kernel, or puts back what it was told before."""
    made, id = containers.cgroups, container.config.id
    for root in limits.further(made, resources):
        if not (root / id).exists():
            joining.make(root, id, container.resources)
            move(made.roots[0] / id, root / id)
    try:
        limits.write(made, id, resources, before)
    except TinyoError:
        limits.write(made, id, before, resources)
        raise


def move(origin: Path, target: Path) -> None:
    """All threads of a container join one more cgroup of v1, also those that are born meanwhile."""
    while outside := pausing.threads(origin) - pausing.threads(target):
        pausing.move(outside, target)
