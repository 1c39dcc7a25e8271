"""Volumes: folders that outlive the containers that use them.

`volumes/NAME/` holds `data/`, which containers see, and `created`, whose time says since when. A volume is filled once
in its life, when it is empty at its first use: into `filling/`, which takes the place of `data/` in one step when it
is complete and on the disk. Whatever ends us before that, it is filled again.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from tinyo.v1.storage_pb2 import Volume

from tinyo_runtime import failures, fill, trash
from tinyo_runtime.errors import TinyoError

if TYPE_CHECKING:
    from tinyo_runtime.containers import Containers

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
FILL = [sys.executable, "-I", "-S", fill.__file__]
#: Two starts that use one new volume fill it once.
_locks: dict[Path, asyncio.Lock] = {}


def folder(state: Path, name: str) -> Path:
    """Where a volume is. Raises INVALID_SPEC for what is no name."""
    if not NAME.fullmatch(name):
        message = f"volume name {name!r}: use at most 128 of a-z, A-Z, 0-9, '_', '.' and '-', a letter or digit first"
        raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, {"name": name}, "name")
    return state / "volumes" / name


def make(state: Path, name: str) -> bool:
    """Makes a volume; whether it was not there."""
    return prepare(folder(state, name))


def prepare(volume: Path) -> bool:
    """Makes the folders of a volume; whether it was not there."""
    new = not (volume / "created").exists()
    volume.mkdir(0o711, parents=True, exist_ok=True)
    (volume / "data").mkdir(0o755, exist_ok=True)
    if new:
        (volume / "created").touch(0o600)
    return new


async def filled(volume: Path, layers: Path, names: Sequence[str], target: str) -> None:
    """Fills a volume with what `layers`/`names`, the topmost first, have at a target, unless it was or has anything.

    Raises VOLUME_NOT_FILLED.
    """
    async with _locks.setdefault(volume, asyncio.Lock()):
        data = volume / "data"
        if fill.is_filled(data) or any(os.scandir(data)):
            return
        await asyncio.to_thread(shutil.rmtree, volume / "filling", ignore_errors=True)
        command = [*FILL, str(layers), str(volume), target, *names]
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stderr=PIPE, env={})
        try:
            _, said = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            why = said.decode(errors="replace").strip().rpartition("\n")[2] or f"exit {process.returncode}"
            message = f"the volume at {target} could not be filled from the image: {why}"
            raise TinyoError(failures.FAILED, "VOLUME_NOT_FILLED", message, {"target": target})


def known(state: Path) -> list[Volume]:
    """All of them, in the order of their names."""
    found = sorted(path.name for path in state.glob("volumes/*") if (path / "created").exists())
    return [told(state, name) for name in found]


def told(state: Path, name: str) -> Volume:
    """One volume. Raises VOLUME_NOT_FOUND."""
    path = folder(state, name)
    volume = Volume(name=name, path=str(path / "data"))
    try:
        volume.created_at.FromNanoseconds((path / "created").stat().st_mtime_ns)
    except FileNotFoundError:
        message = f"there is no volume {name!r}: `tinyo volume ls` shows all"
        raise TinyoError(grpc.StatusCode.NOT_FOUND, "VOLUME_NOT_FOUND", message, {"name": name}) from None
    return volume


def measured(volume: Volume) -> Volume:
    """With what it takes on the disk; what goes meanwhile does not count."""
    volume.size_bytes = sum(_sizes(volume.path))
    return volume


def _sizes(path: str) -> Iterator[int]:
    """Of each file once, whatever names it has."""
    seen = set[int]()
    for _, folders, files, fd in os.fwalk(path, follow_symlinks=False):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(name, dir_fd=fd)
                if found.st_ino not in seen:
                    yield found.st_blocks * 512
                if found.st_nlink > 1:
                    seen.add(found.st_ino)


def used(containers: "Containers", in_use: Collection[str]) -> dict[str, str]:
    """Names of volumes, with a container that uses each; "" for those that only the caller knows of."""
    return dict.fromkeys(in_use, "") | {
        mount.volume: container.config.spec.name
        for container in containers.all.values()
        for mount in container.config.spec.mounts
        if mount.volume
    }


def remove(containers: "Containers", names: Sequence[str], in_use: Collection[str]) -> None:
    """All of them or none. Raises VOLUME_NOT_FOUND and VOLUME_IN_USE."""
    using = used(containers, in_use)
    for name in names:
        told(containers.folder, name)
        if name in using:
            holder = f"container {using[name]!r}" if using[name] else "a container"
            message = f"volume {name!r} is used by {holder}: remove that one first"
            what = {"name": name, "holder": holder}
            raise TinyoError(failures.FAILED, "VOLUME_IN_USE", message, what)
    for name in dict.fromkeys(names):
        doomed = containers.folder / "trash" / f"volume-{name}-{secrets.token_hex(4)}"
        doomed.parent.mkdir(exist_ok=True)
        folder(containers.folder, name).rename(doomed)
        trash.watch(containers.sweeper.submit(shutil.rmtree, doomed))
