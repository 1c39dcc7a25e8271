"""The cgroup of a bundle's container, in every hierarchy of v1 and in that of v2 where it has controllers."""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tinyo_runtime import hierarchies
from tinyo_runtime.oci.errors import OciError

#: Where containers are whose bundle names no path.
DEFAULT = "/tinyo-oci"
#: Seconds that processes get to end after SIGKILL, and a cgroup to become free.
PATIENCE = 5.0


class Cgroup:
    """One path, below the mount point of each hierarchy. It is there once `make` was called."""

    def __init__(self, path: str) -> None:
        self.path = path
        roots = dict.fromkeys((place.hierarchy, place.v2) for place in hierarchies.controllers().values())
        #: Its folder in each hierarchy, and whether that is v2.
        self.folders = {root / path.lstrip("/"): v2 for root, v2 in roots}

    def folder(self, controller: str) -> tuple[Path, bool] | None:
        """Where a controller is for it, by its name in v2 or, for what only v1 has, in v1; and whether that is v2."""
        place = hierarchies.controllers().get(controller)
        return (place.hierarchy / self.path.lstrip("/"), place.v2) if place else None

    def check_free(self) -> None:
        """Before anything is made, which could not be told from what is there. OciError when somebody is in it."""
        for folder in self.folders:
            with contextlib.suppress(FileNotFoundError):
                if (folder / "cgroup.procs").read_text().strip():
                    raise OciError(
                        f"the cgroup {folder} has processes already: choose another linux.cgroupsPath"
                    )

    def make(self) -> None:
        """Makes it, and what is above it."""
        for folder, v2 in self.folders.items():
            depth = len(Path(self.path.lstrip("/")).parts)
            for one in [*reversed(folder.parents[: depth - 1]), folder]:
                one.mkdir(exist_ok=True)
                _inherit_cpuset(one)
                if v2:
                    _hand_down(one.parent)

    @contextlib.contextmanager
    def opened(self) -> Iterator[list[int]]:
        """The files to which a process writes "0" to join it (cgroups.Cgroups.opened)."""
        with contextlib.ExitStack() as opened:
            fds = []
            for folder, v2 in self.folders.items():
                file = folder / ("cgroup.procs" if v2 else "tasks")
                fds.append(os.open(file, os.O_WRONLY | os.O_CLOEXEC))
                opened.callback(os.close, fds[-1])
            yield fds

    def pids(self) -> list[int]:
        """Every process in it and below, as far as we can see them."""
        found = set[int]()
        for folder in self.folders:
            for path, _, _ in os.walk(folder):
                with contextlib.suppress(OSError):
                    found |= set(map(int, Path(path, "cgroup.procs").read_text().split()))
        return sorted(found - {0})

    def signal(self, number: int) -> None:
        """To every process. With SIGKILL until there is none: some may be born meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number != signal.SIGKILL:
                return
            if time.monotonic() > deadline:
                raise OciError(f"processes do not end, and stay in the cgroup {self.path}: {pids}")
            time.sleep(0.005)

    def freeze(self, frozen: bool) -> None:
        """Stops every process in it for a while (cgroup.freeze, or the freezer of v1)."""
        for folder, v2 in self.folders.items():
            file = folder / ("cgroup.freeze" if v2 else "freezer.state")
            if file.exists():
                write(file, ("1" if frozen else "0") if v2 else ("FROZEN" if frozen else "THAWED"))
                return
        raise OciError(f"this kernel ({hierarchies.kernel()}) has nothing that could pause a cgroup")

    def frozen(self) -> bool:
        """Whether it is stopped."""
        for folder, v2 in self.folders.items():
            with contextlib.suppress(OSError):
                file = folder / ("cgroup.freeze" if v2 else "freezer.state")
                return file.read_text().strip() in ("1", "FROZEN", "FREEZING")
        return False

    def remove(self) -> None:
        """Undoes `make`; what is above it stays, but for our own. OciError when somebody is still in it."""
        for folder in self.folders:
            for path, _, _ in os.walk(folder, topdown=False):
                _remove(Path(path))
            if Path(self.path).parent == Path(DEFAULT):
                with contextlib.suppress(OciError):  # another container is on its way
                    _remove(folder.parent)


def _inherit_cpuset(folder: Path) -> None:
    """One of v1 takes nobody in before it has both lists (cpuset(7))."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not (folder / "cgroup.controllers").exists() and not file.read_text().strip():
            write(file, (folder.parent / name).read_text().strip())


def _hand_down(folder: Path) -> None:
    """Every controller that a folder of v2 has, its children have too, where the kernel lets them."""
    for name in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # whoever asks for such a limit is told that it cannot be had
            write(folder / "cgroup.subtree_control", f"+{name}")


def _remove(folder: Path) -> None:
    """The kernel needs a moment to let go of processes that have ended, and of cgroups. One that has others stays."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if any(one.is_dir() for one in os.scandir(folder)):
                return
            if time.monotonic() > deadline:
                raise OciError(f"the cgroup {folder} cannot be removed: there are processes in it") from None
            time.sleep(0.002)
            continue
        return


def write(path: Path, value: str) -> None:
    """Without creating: a file that is not there is a controller that is not there. OSError names both."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{path}: {value}") from None
