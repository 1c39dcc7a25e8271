"""Volumes, file systems in memory and what else a mount can be."""

import os
import re
from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.storage_pb2 import PROPAGATION_PRIVATE, PROPAGATION_UNSPECIFIED

VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
#: Bytes of the smallest file system in memory that anything fits into: a page.
MIN_SIZE = 4096


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong with them."""
    places = {}
    for index, mount in enumerate(spec.mounts):
        field = f"mounts[{index}]"
        places[f"{field}.target"] = mount.target
        if mount.volume and mount.source:
            yield f"{field}.volume", "a mount has a source or a volume, and not both"
        elif mount.volume and not VOLUME.fullmatch(mount.volume):
            yield (
                f"{field}.volume",
                f"volume {mount.volume!r}: use at most 128 of a-z, A-Z, 0-9, '_', '.' and '-', a letter or digit first",
            )
        if mount.no_copy and not mount.volume:
            yield f"{field}.no_copy", "`nocopy` is for volumes: only they are filled from the image"
        if mount.sub_path and not _is_below(mount.sub_path):
            yield f"{field}.sub_path", f"sub_path {mount.sub_path!r} must be a relative path without '..'"
        if mount.volume and mount.propagation not in (PROPAGATION_UNSPECIFIED, PROPAGATION_PRIVATE):
            yield f"{field}.propagation", "nothing is mounted in a volume, so nothing of it can spread"
    for index, tmpfs in enumerate(spec.tmpfs):
        field = f"tmpfs[{index}]"
        places[f"{field}.target"] = tmpfs.target
        if not _is_target(tmpfs.target):
            yield (
                f"{field}.target",
                f"tmpfs target {tmpfs.target!r} must be an absolute path without '..', not '/'",
            )
        if tmpfs.size_bytes and tmpfs.size_bytes < MIN_SIZE:
            yield (
                f"{field}.size_bytes",
                f"a tmpfs of {tmpfs.size_bytes} bytes holds nothing: {MIN_SIZE} at least",
            )
        if tmpfs.mode > 0o7777:
            yield f"{field}.mode", f"mode {tmpfs.mode:o} is no mode: 7777 at most"
    if spec.shm_size_bytes and spec.shm_size_bytes < MIN_SIZE:
        yield (
            "shm_size_bytes",
            f"a /dev/shm of {spec.shm_size_bytes} bytes holds nothing: {MIN_SIZE} at least",
        )
    seen = set[str]()
    for place, target in places.items():
        if (path := os.path.normpath(target)) in seen:
            yield place, f"something else is mounted at {target} already"
        seen.add(path)


def _is_target(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and "\0" not in path and bool(path.strip("/"))


def _is_below(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path and len(path) < 4096
