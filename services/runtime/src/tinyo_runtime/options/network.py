"""`network: container:NAME`: a container joins the network of another one of its cluster."""

import os
import signal
from typing import TYPE_CHECKING

from tinyo.v1.network_pb2 import NETWORK_KIND_CONTAINER

from tinyo_runtime import failures
from tinyo_runtime.spawner import syscalls

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container
    from tinyo_runtime.options import Start

#: Files that say who it is on the network, which are the other's then.
FILES = ("hosts", "resolv.conf")


async def part(start: "Start") -> None:
    """Puts the other's network in place of the one that the plan has. CONTAINER_NOT_RUNNING when it does not run."""
    if start.joins or start.spec.network.kind != NETWORK_KIND_CONTAINER:
        return
    other = _other(start)
    start.plan["netns"] = start.hand(_namespace(other))
    mounts = start.plan["mounts"]
    for name in FILES:
        place = next(place for place, mount in enumerate(mounts) if mount[0] == f"/etc/{name}")
        fd = syscalls.open_tree(syscalls.AT_FDCWD, str(other.folder / "etc" / name))
        mounts[place] = (f"/etc/{name}", start.hand(fd), False)
        syscalls.make_private(fd, read_only=False)


def _other(start: "Start") -> "Container":
    """The container whose network it is."""
    name, cluster = start.spec.network.container, start.container.config.cluster
    for other in start.containers.all.values():
        if (other.config.cluster, other.config.spec.name) == (cluster, name) and other.process:
            return other
    raise failures.not_running(name, "network.container")


def _namespace(other: "Container") -> int:
    """A descriptor of its network namespace; the process is still the same one once that is open."""
    assert other.process
    try:
        fd = os.open(f"/proc/{other.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise failures.not_running(other.config.spec.name, "network.container") from None
    try:
        signal.pidfd_send_signal(other.process.pidfd, 0)
    except ProcessLookupError:
        os.close(fd)
        raise failures.not_running(other.config.spec.name, "network.container") from None
    return fd
