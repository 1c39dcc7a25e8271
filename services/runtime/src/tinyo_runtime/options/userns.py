"""User namespaces: root of a container is nobody on the host (docs/decisions/0018-user-namespaces.md).

Whether a container has one is decided at its first start, and stays so: the files of its own belong to its range of
ids. Layers and mounts are mapped to it: what root of the host owns there is root's of the container.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1 import userns_pb2 as v1
from tinyo.v1.network_pb2 import NETWORK_KIND_CONTAINER

from tinyo_runtime import failures
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import namespaces, ranges
from tinyo_runtime.options.namespaces import impossible
from tinyo_runtime.spawner import syscalls, userns

if TYPE_CHECKING:
    from tinyo_runtime.options import Start

#: Since then overlayfs takes layers that are mapped.
KERNEL = (5, 19)


async def part(start: "Start") -> None:
    """Must come after all others: it maps the mounts of the plan. Raises TinyoError."""
    upper, asked = start.container.folder / "upper", start.spec.userns
    try:
        known = userns.recorded(upper)
    except FileNotFoundError:  # it is being taken away
        raise failures.not_running(start.container.config.spec.name) from None
    if start.joins:
        if known:
            start.plan["userns"] = {"namespace": start.plan["container"], "first": known}
        return
    fresh = not (upper.parent / "work/work").exists()  # overlayfs makes it
    default = fresh and start.containers.settings.userns.lower() == "true"
    if not known and (asked == v1.USER_NAMESPACE_OFF or not (asked or default)):
        return
    try:
        first, namespace = await namespaces.of(start.containers).take(upper)
        index = start.hand(namespace)
        if not known:
            _check(start, namespace)
    except TinyoError as error:
        if asked or known or error.reason != "USERNS_IMPOSSIBLE":
            raise
        namespaces.of(start.containers).give_back(upper)
        start.said["userns"] = v1.UserNamespaceStatus(missing=error.metadata["why"])
        return
    layers = _map(start, namespace)
    if fresh:
        ranges.remember(upper, first)
        ranges.give(upper, first)
    home, netns = os.stat("/proc/self/ns/net").st_ino, start.plan.get("netns")
    start.plan |= {name: str(upper.with_name(name)) for name in ("upper", "work")}
    start.plan["userns"] = {
        "namespace": index,
        "first": first,
        "ids": userns.IDS,
        "layers": start.hand(layers),
        "own_network": netns is not None
        and os.fstat(start.fds[netns]).st_ino != home
        and start.spec.network.kind != NETWORK_KIND_CONTAINER,
    }
    start.said["userns"] = v1.UserNamespaceStatus(first_id=first, ids=userns.IDS)


def _mapped(path: str, namespace: int, flags: int = syscalls.AT_RECURSIVE) -> int:
    """A copy of the mount at a path, mapped, attached nowhere."""
    fd = syscalls.open_tree(syscalls.AT_FDCWD, path, flags)
    try:
        userns.map_ids(fd, namespace, path, flags)
    except OSError:
        os.close(fd)
        raise
    return fd


def _map(start: "Start", namespace: int) -> int:
    """Maps what the plan mounts; gives the mount of the layers, mapped. Raises TinyoError."""
    try:
        for target, index, _ in start.plan["mounts"]:
            userns.map_ids(start.fds[index], namespace, target)
        return _mapped(start.plan["layers_dir"], namespace, 0)
    except OSError as error:
        _check(start, namespace)
        raise impossible(f"mount {error.filename}: {error.strerror}") from error


def _check(start: "Start", namespace: int) -> None:
    """Raises TinyoError that names what cannot be mapped, and its file system."""
    release = os.uname().release
    if tuple(map(int, release.split("-")[0].split(".")[:2])) < KERNEL:
        raise impossible(f"Linux {release} is older than {'.'.join(map(str, KERNEL))}")
    for number, mount in enumerate(start.spec.mounts):
        if mount.source and (why := _culprit(mount.source, namespace)):
            raise impossible(f"mount {mount.source}: {why}", f"mounts[{number}].source")
    if why := _culprit(start.plan["layers_dir"], namespace, 0):
        raise impossible(f"the layers of images: {why}")


def _culprit(source: str, namespace: int, flags: int = syscalls.AT_RECURSIVE) -> str:
    """Which of the mounts at and below a path cannot be mapped; nothing when all can."""
    try:
        os.close(_mapped(source, namespace, flags))
        return ""
    except OSError as error:
        why = f"{error.strerror}"
    for place, kind in _mounts(os.path.realpath(source)):
        try:
            os.close(_mapped(place, namespace, 0))
        except OSError:
            return f"{kind} at {place} cannot be mapped to a user namespace"
    return why


def _mounts(path: str) -> Iterator[tuple[str, str]]:
    """Where, and of what kind, the mount that a path is on and all below it are (proc_pid_mountinfo(5))."""
    around, below = ("/", ""), []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        place = os.fsdecode(os.fsencode(before.split()[4]).decode("unicode_escape").encode("latin-1"))
        kind = after.split()[0]
        if path == place or path.startswith(place.rstrip("/") + "/"):
            around = (place, kind) if len(place) >= len(around[0]) else around
        elif place.startswith(path.rstrip("/") + "/"):
            below.append((place, kind))
    yield path, around[1]
    yield from below
