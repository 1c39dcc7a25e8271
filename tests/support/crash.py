"""A process that may die at any step, and power that may fail.

with process(work) as pid: ...                     # work() in a process of its own, which is waited for
status = outcome(work, "os.rename *=kill")         # how that process ended (see tinyo_runtime.failpoints)
points = noted(work, folder)                       # the steps with an effect that work() takes
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tinyo_runtime import failpoints


@contextlib.contextmanager
def process(work: Callable[[], object], points: str = "") -> Iterator[int]:
    """Runs `work` with failpoints in a process of its own, and gives its id. In the end it is waited for."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setsid()
            failpoints.begin(points)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _reap(pid)


def outcome(work: Callable[[], object], points: str = "") -> int:
    """Exit status of `work` in a process of its own; negative when a signal ended it (as in subprocess)."""
    with process(work, points):
        pass
    return _statuses.pop()


def steps(below: Path, *events: str) -> str:
    """All points below a folder, or those of some events, as failpoints are written."""
    return "|".join(f"{event} {below}*" for event in events or ("*",))


def noted(work: Callable[[], object], below: Path, *events: str) -> list[str]:
    """The names of these points that `work` reaches, in their order."""
    with tempfile.NamedTemporaryFile() as notes:
        assert outcome(work, f"{steps(below, *events)}=note:{notes.name}") == 0
        return Path(notes.name).read_text().splitlines()


_statuses: list[int] = []


def _reap(pid: int) -> None:
    """Waits for a process, and for those of its session that are ours now (the tests are a subreaper)."""
    _, status = os.waitpid(pid, 0)
    _statuses[:] = [os.waitstatus_to_exitcode(status)]
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)


def until(happened: Callable[[], bool]) -> None:
    """Returns when something on a disk has happened, which cannot be awaited in another way."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Ext4:
    """A small file system of its own, on a loop device, mounted in a mount namespace of its own; its power may fail.

    Enter it in a process that exists for it alone (`outcome`): with that process all of it is gone.
    """

    #: EXT4_IOC_SHUTDOWN, and its flags: the journal is written first, or it is not.
    SHUTDOWN, LOGFLUSH, NOLOGFLUSH = 0x8004587D, 1, 2

    def __init__(self, image: Path, folder: Path, *options: str, megabytes: int = 64) -> None:
        self._image, self.folder = image, folder
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", *options, image], check=True)

    def __enter__(self) -> "Ext4":
        _own_mounts()
        self._mount()
        return self

    def __exit__(self, *what: object) -> None:
        subprocess.run(["umount", self.folder], check=True)

    def fail(self, flag: int) -> None:
        """What has not reached the disk by now is lost."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, self.SHUTDOWN, struct.pack("I", flag))
        finally:
            os.close(descriptor)

    def return_(self) -> None:
        """The power is back."""
        subprocess.run(["umount", self.folder], check=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)


def _own_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) or libc.mount(
        b"none", b"/", None, 0x44000, None
    ):  # CLONE_NEWNS, MS_REC|MS_PRIVATE
        raise OSError(ctypes.get_errno(), "cannot have mounts of our own")
