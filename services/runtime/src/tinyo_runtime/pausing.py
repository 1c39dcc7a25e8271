"""Pausing a container: none of its processes runs, and all of them go on afterwards, whatever happened meanwhile.

With cgroup v2 its own cgroup is frozen (cgroup.freeze). With v1 there is a hierarchy for it (freezer, cgroups(7)),
which containers join only to be paused: a thread that comes into a frozen cgroup stops, and goes on when it leaves.
"""

import asyncio
import contextlib
import errno
import itertools
import os
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime import failures
from tinyo_runtime.cgroups import Cgroups, removed, write

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers
    from tinyo_runtime.options import Start

#: Seconds until every process has stopped; one that waits for a disk may need some.
PATIENCE = 10


@contextlib.asynccontextmanager
async def paused(cgroups: Cgroups, id: str, name: str) -> AsyncIterator[None]:
    """The container with that id is paused meanwhile; `name` is for errors. Raises CONTAINER_NOT_PAUSED."""
    await hold(cgroups, id, name, "; with --no-pause it is read while it runs")
    try:
        yield
    finally:
        await release(cgroups, id)


async def hold(cgroups: Cgroups, id: str, name: str, hint: str = "") -> None:
    """The container is paused from now on. Raises CONTAINER_NOT_PAUSED, with a hint; then it goes on."""
    freezer = next(_freezers(cgroups, id), None)
    if not freezer:
        raise failures.not_paused(name, f"this kernel has no freezer among its cgroups{hint}")
    try:
        async with asyncio.timeout(PATIENCE):
            await freezer.stop()
    except BaseException as error:
        await release(cgroups, id)
        if isinstance(error, TimeoutError):
            why = f"one of its processes did not stop in {PATIENCE} s{hint}"
            raise failures.not_paused(name, why) from None
        raise


async def release(cgroups: Cgroups, id: str) -> None:
    """The container goes on, if it was paused."""
    if freezer := next(_freezers(cgroups, id), None):
        freezer.go_on()
        await freezer.close()


def is_held(cgroups: Cgroups, id: str) -> bool:
    """Whether the kernel has the container paused."""
    freezer = next(_freezers(cgroups, id), None)
    return freezer is not None and freezer.is_stopped()


async def part(start: "Start") -> None:
    """A container that ends while it is paused is not any longer; see tinyo_runtime.options."""
    if not start.joins:
        start.resources.push_async_callback(thaw, start.containers, start.container)


async def thaw(containers: "Containers", container: "Container") -> None:
    """Somebody paused a container, and wants it to go on or to end."""
    if container.state.paused:
        container.state.paused = False
        await release(containers.cgroups, container.config.id)


def end_all(cgroups: Cgroups, but: Collection[str] = ()) -> None:
    """What an earlier runtime paused goes on, except those that it was told to pause."""
    for root in cgroups.roots:
        for file in root.glob("*/cgroup.freeze"):
            if file.parent.name not in but:
                write(file, "0")
    for hierarchy in _v1():
        for root in cgroups.roots[:1]:
            for folder in (hierarchy / root.name).glob("*/"):
                if folder.name in but:
                    continue
                _Hierarchy(folder, root / folder.name).go_on()
                with contextlib.suppress(OSError):  # somebody is about to leave
                    folder.rmdir()
            with contextlib.suppress(OSError):
                (hierarchy / root.name).rmdir()


def _freezers(cgroups: Cgroups, id: str) -> Iterator["_Own | _Hierarchy"]:
    """Every way to pause a container."""
    for root in cgroups.roots:
        if (root / id / "cgroup.freeze").exists():
            yield _Own(root / id)
    for hierarchy, root in itertools.product(_v1(), cgroups.roots[:1]):
        yield _Hierarchy(hierarchy / root.name / id, root / id)


def _v1() -> Iterator[Path]:
    """Where the freezer's hierarchy is mounted (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup" and "freezer" in options.split(","):
            yield Path(before.split(" ")[4])


@contextlib.contextmanager
def _unless_ended() -> Iterator[None]:
    """A container that ends takes its cgroup along, and needs no pausing any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


class _Own:
    """The container's cgroup of v2."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def stop(self) -> None:
        with _unless_ended():
            write(self._folder / "cgroup.freeze", "1")
            await self._are("frozen 1")

    def is_stopped(self) -> bool:
        with _unless_ended():
            return (self._folder / "cgroup.freeze").read_text() == "1\n"
        return False

    def go_on(self) -> None:
        with _unless_ended():
            write(self._folder / "cgroup.freeze", "0")

    async def close(self) -> None:
        """What is said of them lags behind, and the next one who pauses them must not believe it."""
        with _unless_ended(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._are("frozen 0")

    async def _are(self, said: str) -> None:
        while said not in (self._folder / "cgroup.events").read_text():
            await asyncio.sleep(0.002)


class _Hierarchy:
    """A frozen cgroup of v1, beside those that the container is in."""

    def __init__(self, folder: Path, container: Path) -> None:
        self._folder, self._container = folder, container

    async def stop(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write(self._folder / "freezer.state", "FROZEN")
        while outside := threads(self._container) - threads(self._folder):
            move(outside, self._folder)
            await asyncio.sleep(0)
        while (self._folder / "freezer.state").read_text() != "FROZEN\n":
            await asyncio.sleep(0.002)

    def is_stopped(self) -> bool:
        with _unless_ended():
            frozen = (self._folder / "freezer.state").read_text() != "THAWED\n"
            return frozen and threads(self._container) <= threads(self._folder)
        return False

    def go_on(self) -> None:
        while inside := threads(self._folder):
            move(inside, self._folder.parents[1])

    async def close(self) -> None:
        await removed(self._folder)
        with contextlib.suppress(OSError):  # another container is paused
            self._folder.parent.rmdir()


def threads(cgroup: Path) -> set[str]:
    """Those that live: a process whose first thread has ended goes on in others."""
    threads = set[str]()
    with _unless_ended():
        threads |= {*(cgroup / "tasks").read_text().split()}
    return threads


def move(threads: set[str], cgroup: Path) -> None:
    fd = os.open(cgroup / "tasks", os.O_WRONLY | os.O_CLOEXEC)
    try:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.write(fd, thread.encode())
    finally:
        os.close(fd)
