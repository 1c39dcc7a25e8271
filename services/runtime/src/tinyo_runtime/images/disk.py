"""What was written reaches the disk before anybody relies on it."""

import asyncio
import ctypes
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def flush(path: Path) -> None:
    """Returns when a file, or the names in a folder, have reached the disk. Raises OSError."""
    sys.audit("tinyo.fsync", path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def blobs(root: Path) -> Iterator[Path]:
    """The files in the layout of a store."""
    for algorithm in (root / "images/blobs").iterdir():
        yield from algorithm.iterdir()


def link(descriptor: int, path: Path) -> None:
    """Gives an open file one more name. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # with a descriptor it is linkat(2), which follows the link in /proc
        os.link(f"/proc/self/fd/{descriptor}", path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def remove(path: Path, identity: os.stat_result) -> None:
    """Deletes a file that was read, unless another one has its place by now."""
    if path.exists() and os.path.samestat(path.stat(), identity):
        path.unlink()


def allotted(path: Path) -> int:
    """Bytes that a file, or a folder with all that is in it, takes on the disk; hard links count once (as in du(1)).

    What is deleted meanwhile takes none.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_blocks * 512
    total, seen = 0, set[int]()
    for _, _, names, descriptor in os.fwalk(path):  # by descriptors: paths may be too long
        total += os.fstat(descriptor).st_blocks * 512
        for name in names:
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if found.st_nlink == 1 or found.st_ino not in seen:
                total += found.st_blocks * 512
                seen.add(found.st_ino)
    return total


class Disk:
    """The file system of a folder; syncfs(2) is shared by all who wait for it at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def sync(self) -> None:
        """Returns when everything that was written before the call has reached the disk. Raises OSError."""
        if self._next is None:
            self._next = asyncio.create_task(self._sync(self._running))
        await asyncio.shield(self._next)

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._syncfs)

    def _syncfs(self) -> None:
        sys.audit("tinyo.syncfs", self._folder)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(descriptor) == -1:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(self._folder))
        finally:
            os.close(descriptor)
