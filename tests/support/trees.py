"""What is in a folder, in all that can be told of it: to compare what should be the same.

assert listing(one) == listing(other)
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: By names relative to the folder: type and mode, owners, time in nanoseconds, and what depends on the type.
Listing = dict[bytes, tuple[Any, ...]]
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def listing(root: Path) -> Listing:
    """All of one file system below `root`, itself too; what is mounted there is left out. By descriptors, so that
    no path is too long."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    device = os.fstat(fd).st_dev
    first: dict[int, bytes] = {}
    return dict(_walk(fd, b".", device, first))


def _walk(
    fd: int, path: bytes, device: int, first: dict[int, bytes]
) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    yield path, (*_common(os.fstat(fd)), _attributes(fd))
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        found, below = os.lstat(name, dir_fd=fd), path + b"/" + name
        if stat.S_ISDIR(found.st_mode):
            inner = os.open(name, _OPEN, dir_fd=fd)
            if os.fstat(inner).st_dev == device:
                yield from _walk(inner, below, device, first)
            else:
                os.close(inner)
            continue
        about: tuple[Any, ...] = _common(found)
        if stat.S_ISREG(found.st_mode):
            file = os.open(name, _OPEN, dir_fd=fd)
            if os.fstat(file).st_dev != device:
                os.close(file)
                continue
            about += (found.st_size, _attributes(file))
            with open(file, "rb") as data:
                about += (hashlib.file_digest(data, "sha256").hexdigest(),)
        elif stat.S_ISLNK(found.st_mode):
            about += (os.readlink(name, dir_fd=fd),)
        elif stat.S_ISCHR(found.st_mode):
            yield below, ("device", found.st_rdev)  # a whiteout has nothing else
            continue
        yield below, (*about, first.setdefault(found.st_ino, below))
    os.close(fd)


def _common(found: os.stat_result) -> tuple[Any, ...]:
    return oct(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns


def _attributes(fd: int) -> dict[str, bytes]:
    """But for what overlayfs alone sees."""
    return {
        name: os.getxattr(fd, name)
        for name in sorted(os.listxattr(fd))
        if not name.startswith("trusted.") or name == "trusted.overlay.opaque"
    }
