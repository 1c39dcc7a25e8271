"""`linux.uidMappings` and `gidMappings` of a bundle: which ids of the host those of its user namespace are."""

import os
import stat
from itertools import pairwise
from typing import Any

from tinyo_runtime.oci.names import NOEXEC, NOSUID
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.spawner import filesystems
from tinyo_runtime.spawner import syscalls as sys

#: Lines of a map (user_namespaces(7)); ids that there are.
MOST, IDS = 340, (1 << 32) - 1
KEYS = {"uid": "uidMappings", "gid": "gidMappings"}

#: (first inside, first outside, how many), as in /proc/PID/uid_map.
Map = list[tuple[int, int, int]]


def read(config: Part) -> dict[str, Map]:
    """Those of users and of groups; nothing without a user namespace. OciError."""
    linux = config.part("linux")
    if not any(entry.text("type") == "user" for entry in linux.parts("namespaces")):
        for key in KEYS.values():
            linux.refuse(key, "needs a namespace of type user")
        return {}
    return {kind: _map(linux, key) for kind, key in KEYS.items()}


def _map(linux: Part, key: str) -> Map:
    found: Map = []
    for entry in linux.parts(key):
        inside, outside = (entry.number(name, 0, IDS - 1) for name in ("containerID", "hostID"))
        if inside is None or outside is None:
            raise entry.wrong("containerID", "and hostID are needed")
        size = entry.number("size", 1, IDS - max(inside, outside))
        if size is None:
            raise entry.wrong("size", "is needed")
        found.append((inside, outside, size))
    if outside_of(found, 0) is None:
        raise linux.wrong(key, "must say which id of the host is 0 of the user namespace")
    if len(found) > MOST:
        raise linux.wrong(key, f"has {len(found)} ranges, and the kernel takes {MOST}")
    for place in (0, 1):
        for before, after in pairwise(sorted(found, key=lambda one: one[place])):
            if before[place] + before[2] > after[place]:
                raise linux.wrong(key, f"has ranges that overlap at {after[place]}")
    return found


def outside_of(ranges: Map, id: int) -> int | None:
    """The host's number of an id; None when it has none."""
    return next((to + id - begin for begin, to, size in ranges if begin <= id < begin + size), None)


def user(maps: dict[str, Map], process: Part, told: dict[str, Any]) -> dict[str, Any]:
    """What the spawner is to know of it: the maps, and whose the pipes of the process are to be. OciError for a user who
    is nobody there."""
    part = process.part("user")
    owner = outside_of(maps["uid"], told["uid"])
    ids = {"uid": [told["uid"]], "gid": [told["gid"]], "additionalGids": told["groups"]}
    for key, numbers in ids.items():
        for number in numbers:
            if outside_of(maps["uid" if key == "uid" else "gid"], number) is None:
                raise part.wrong(key, f"has {number}, which the user namespace does not map")
    return {"uid": maps["uid"], "gid": maps["gid"], "owner": owner}


def device(path: str, mode: int, number: int) -> int | None:
    """A detached mount of the host's own node: nobody makes one in a user namespace (mknod(2)). None where the host has
    no such device there."""
    fd = sys.open_tree(sys.AT_FDCWD, path)
    found = os.fstat(fd)
    if (stat.S_IFMT(found.st_mode), found.st_rdev) == (stat.S_IFMT(mode), number):
        filesystems.set_attributes(fd, path, NOSUID | NOEXEC, sys.MS_PRIVATE)
        return fd
    os.close(fd)
    return None
