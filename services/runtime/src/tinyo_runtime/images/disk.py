"""What was written reaches the disk before anybody relies on it."""

import asyncio
import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
#: By folder: the syncfs(2) that runs, and the one that comes after it.
_running: dict[Path, asyncio.Task[None]] = {}
_next: dict[Path, asyncio.Task[None]] = {}


def flush(path: Path) -> None:
    """Returns when a file, or the names in a folder, have reached the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def sync(folder: Path) -> None:
    """Returns when all that was written before the call, anywhere on the file system, has reached the disk.

    All who wait at the same time share one syncfs(2). Raises OSError.
    """
    if folder not in _next:
        _next[folder] = asyncio.create_task(_sync(folder, _running.get(folder)))
    await asyncio.shield(_next[folder])


async def _sync(folder: Path, before: "asyncio.Task[None] | None") -> None:
    if before:
        await asyncio.wait([before])
    _running[folder] = _next.pop(folder)
    try:
        await asyncio.to_thread(_syncfs, folder)
    finally:
        if _running.get(folder) is asyncio.current_task():
            del _running[folder]


def _syncfs(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
