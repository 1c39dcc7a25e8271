"""What a container writes: from its pipes into its log file.

The file has the lines of the kubelet's CRI format, `TIME STREAM P|F BYTES`: F ends a line, P is a part
of one whose rest follows. Bytes are kept as they are.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime.spawnclient import Process

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container

#: Longest part of a line that is kept as one entry.
MAX_LINE = 16 * 1024


def keep(container: "Container", process: Process) -> None:
    """Keeps what a process writes from now on; when it has ended, all that it wrote."""
    container.log = LogWriter(process, container.folder / "log")
    container.resources.push_async_callback(container.log.finish)


class LogWriter:
    """Copies both pipes of a process into a file until both have ended."""

    def __init__(self, process: Process, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._open = {process.stdout: b"stdout", process.stderr: b"stderr"}
        self._rest = dict.fromkeys(self._open, b"")
        self.ended = asyncio.Event()
        #: Set, and replaced by a new one, whenever something was written.
        self.written = asyncio.Event()
        for fd in self._open:
            os.set_blocking(fd, False)
            asyncio.get_running_loop().add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        lines = (self._rest[fd] + data).split(b"\n")
        self._rest[fd] = lines.pop()
        prefix = f"{time.time_ns()} ".encode() + self._open[fd]
        out = [b"%s F %s\n" % (prefix, line) for line in lines]
        if self._rest[fd] and (not data or len(self._rest[fd]) > MAX_LINE):
            out.append(b"%s P %s\n" % (prefix, self._rest[fd]))
            self._rest[fd] = b""
        os.write(self._file, b"".join(out))
        self.written.set()
        self.written = asyncio.Event()
        if not data:
            self._stop(fd)

    def _stop(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        del self._open[fd]
        if not self._open:
            os.close(self._file)
            self.ended.set()

    async def finish(self) -> None:
        """The process has ended: reads what is left in its pipes."""
        with contextlib.suppress(TimeoutError):  # something outside of the container holds a pipe
            await asyncio.wait_for(self.ended.wait(), 1)
        for fd in list(self._open):
            self._stop(fd)
