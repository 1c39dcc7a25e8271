"""One cgroup for each container, in every hierarchy that counts here: v1, hybrid and v2 alike (cgroups(7))."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

#: v1 controllers whose hierarchies a container joins; v2 has one hierarchy with all of them. cpuacct, which is mostly
#: one with cpu, counts processor time; v2 knows no "devices".
CONTROLLERS = ("pids", "memory", "cpu", "cpuacct", "devices")
#: Further ones that cost nothing in v2, for limits and stats.
V2_CONTROLLERS = ("io", "cpuset")
#: Most processes and threads of a container, where nothing else is asked for.
PIDS_MAX = 4096


def hierarchies(mountinfo: str | None = None) -> list[Path]:
    """Mount points of the cgroup hierarchies to join (proc_pid_mountinfo(5))."""
    found = []
    for line in (mountinfo or Path("/proc/self/mountinfo").read_text()).splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        folder, there = Path(before.split(" ")[4]), options.split(",") if kind == "cgroup" else []
        if kind == "cgroup2":  # beside v1 it often has none of these, and joining it costs most
            there = (folder / "cgroup.controllers").read_text().split()
        if set(there) & set(CONTROLLERS) and folder not in found:  # something may be mounted over itself
            found.append(folder)
    return found


class Cgroups:
    """The cgroups of one instance: `HIERARCHY/INSTANCE/ID`, in the hierarchies to join unless others are given."""

    def __init__(self, instance: str, within: Sequence[Path] = ()) -> None:
        self.name = instance
        self.roots = [hierarchy / instance for hierarchy in within or hierarchies()]
        for root in self.roots:
            root.mkdir(exist_ok=True)
            if (root.parent / "cgroup.subtree_control").exists():
                for folder in (root.parent, root):
                    self._enable(folder)
        #: Those that count processes, and by all of them the file to which a process writes "0" to join.
        self._counting = [root for root in self.roots if (root / "pids.max").exists()]
        self._joining = [
            (root, "tasks" if (root / "tasks").exists() else "cgroup.procs") for root in self.roots
        ]

    def _enable(self, folder: Path) -> None:
        """Hands the controllers that a v2 folder has to its children."""
        there = set((folder / "cgroup.controllers").read_text().split())
        wanted = [f"+{name}" for name in CONTROLLERS if name in there]
        if wanted:
            (folder / "cgroup.subtree_control").write_text(" ".join(wanted))
        for name in there & {*V2_CONTROLLERS}:
            with contextlib.suppress(OSError):  # whoever asks for such a limit is told that it cannot be had
                (folder / "cgroup.subtree_control").write_text(f"+{name}")

    def make(self, id: str) -> None:
        """Makes the cgroup and sets its limits."""
        for root in self.roots:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{root}/{id}")
        for root in self._counting:
            write(f"{root}/{id}/pids.max", str(PIDS_MAX))

    @contextlib.contextmanager
    def opened(self, id: str) -> Iterator[list[int]]:
        """The files of a cgroup that was made to which a process writes "0" to join. Closed at the end.

        In v1 that is `tasks`: a process with one thread that moves itself needs none of the locks that
        `cgroup.procs` takes, which cost it 5 ms for each hierarchy.
        """
        with contextlib.ExitStack() as descriptors:
            fds = []
            for root, file in self._joining:
                try:
                    fds.append(os.open(f"{root}/{id}/{file}", os.O_WRONLY | os.O_CLOEXEC))
                except FileNotFoundError:  # it was made by a runtime that did without this hierarchy
                    if root is self.roots[0]:
                        raise
                    continue
                descriptors.callback(os.close, fds[-1])
            yield fds

    async def remove(self, id: str) -> None:
        """Undoes `make`, and ends whoever is still in it, such as a process that was about to join the container; v2
        can do that. The kernel may need a moment to let go of processes that have just ended."""
        for root in self.roots:
            with contextlib.suppress(FileNotFoundError):
                write(f"{root}/{id}/cgroup.kill", "1")
            await removed(f"{root}/{id}")

    def close(self, *, remove: bool) -> None:
        """With `remove` the instance's own folders go, where no container is left in them."""
        for root in self.roots if remove else ():
            with contextlib.suppress(OSError):
                root.rmdir()


async def removed(folder: Path | str) -> None:
    """Takes one folder away. Raises OSError when somebody is in it after a second."""
    deadline = time.monotonic() + 1
    while True:
        try:
            os.rmdir(folder)
            break
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.002)


def write(path: Path | str, value: str) -> None:
    """Writes without creating: a file that is not there is a controller that is not there."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
