"""Which ids of the host a container's user namespace has: a range that nobody else has, for as long as it lives.

The range is remembered where it matters, on the container's writable layer, whose files belong to these ids.
"""

import hashlib
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tinyo_runtime.spawner.userns import IDS, RANGE, recorded

#: Where ranges that administrators gave to users are written down (subuid(5)).
FILES = ("/etc/subuid", "/etc/subgid")
#: What "auto" stands for: a range of ids that systemd, too, leaves to containers, for the instance "tinyo"; others
#: get a smaller part of what follows, by their name.
FIRST, OWN, OTHERS, PARTS = 0x30000000, 0x10000000, 0x01000000, 48
#: Access control lists, and the tags of their entries that name somebody: ACL_USER, ACL_GROUP.
_ACLS, _NAMED = {"system.posix_acl_access", "system.posix_acl_default"}, (2, 8)
#: No id is larger: net.ipv4.ping_group_range ends there.
LAST = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class Ids:
    """A part of Settings."""

    #: "true": containers get a user namespace, unless they say otherwise or a mount of theirs cannot be mapped.
    userns: str = "false"
    #: Ids for containers, "first:count"; each gets 65536 of them. "auto": 268435456 from 805306368 on.
    userns_ids: str = "auto"

    def __post_init__(self) -> None:
        """SystemExit with one sentence when any is wrong."""
        chosen(self.userns_ids, "")
        if self.userns.lower() not in ("true", "false"):
            raise SystemExit(f"userns {self.userns!r}: write true or false")


def remember(upper: Path, first: int) -> None:
    """Before anything on the layer belongs to the range: a power cut keeps that order."""
    os.setxattr(upper, RANGE, b"%d" % first)


def chosen(ids: str, instance: str) -> range:
    """The first ids of all ranges. SystemExit with one sentence when the setting is none."""
    if ids == "auto":
        digest = int.from_bytes(hashlib.sha256(instance.encode()).digest()[:8], "big")
        first, count = FIRST, OWN
        if instance != "tinyo":
            first, count = FIRST + OWN + digest % PARTS * OTHERS, OTHERS
    else:
        try:
            first, count = (int(text, 0) for text in ids.split(":"))
        except ValueError:
            raise SystemExit(f"userns_ids {ids!r}: write first:count, such as 805306368:268435456") from None
    if first < IDS or count < IDS or first + count - 1 > LAST:
        raise SystemExit(f"userns_ids {ids!r}: at least {IDS} ids between {IDS} and {LAST} are needed")
    return range(first, first + count - IDS + 1, IDS)


@dataclass
class Pool:
    """The ranges of one instance; `containers` has a folder for each that there is."""

    ranges: range
    containers: Path
    #: The layer that has a range, by its first id.
    taken: dict[int, Path] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        for upper in self.containers.glob("*/upper"):
            if first := recorded(upper):
                self.taken[first] = upper

    def held_by(self, upper: Path) -> int:
        """The range that a layer was to get when its start failed; 0 when it has none."""
        return next((first for first, holder in self.taken.items() if holder == upper), 0)

    def take(self) -> int:
        """A range that nobody has, each as late as possible again; 0 when there is none. Ours until a layer has it."""
        given = list(others())
        for _ in self.ranges:
            first = self.ranges[self._next % len(self.ranges)]
            self._next += 1
            free = first not in self.taken or not self.taken[first].exists()
            if free and all(first + IDS <= start or start + count <= first for start, count in given):
                self.taken[first] = self.containers
                return first
        return 0


def others() -> Iterator[tuple[int, int]]:
    """First id and count of what users of this machine may use."""
    for name in FILES:
        try:
            lines = Path(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            _, *numbers = line.split(":")
            if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
                yield int(numbers[0]), int(numbers[1])


def give(upper: Path, first: int) -> None:
    """Gives a layer on which nobody has worked yet to a range; what belongs to it already stays. OSError."""
    for _, folders, files, folder in os.fwalk(upper):
        sys.audit("tinyo.userns", os.fspath(upper))
        for name in _ACLS & {*os.listxattr(folder)}:
            os.setxattr(folder, name, _moved(os.getxattr(folder, name), first))
        for name in (".", *folders, *files):
            found = os.lstat(name, dir_fd=folder)
            uid, gid = (id + first if id < IDS else id for id in (found.st_uid, found.st_gid))
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)


def _moved(acl: bytes, first: int) -> bytes:
    """An access control list (acl(5)) of users and groups in a range: a version, then tag, rights and id of each."""
    moved = acl[:4]
    for tag, rights, id in struct.iter_unpack("<HHI", acl[4:]):
        moved += struct.pack("<HHI", tag, rights, id + first if tag in _NAMED and id < IDS else id)
    return moved
