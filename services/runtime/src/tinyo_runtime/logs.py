"""What a container writes: from its pipes into its log files.

A file has the lines of the kubelet's CRI format, `TIME STREAM P|F BYTES`: F ends a line, P is a part of one whose
rest follows. Bytes are kept as they are, and written as soon as they are read: a runtime that is killed loses nothing
but what is still in the pipe, and that it finds again. Times never go back within a file.

`log` is written to; when it is full it becomes `log.1`, and that `log.2`. The loop is everybody's: a log that floods
gets half of it at most, and waits at its pipe for the rest; nobody who reads a log makes it wait.
"""

import asyncio
import contextlib
import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1.log_pb2 import LogLimits

from tinyo_runtime.spawnclient import Process

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers

log = logging.getLogger(__name__)

#: Bytes that are read at once.
CHUNK = 32 * 1024
#: Seconds of work after which a log makes room for others, for as long.
LONG = 0.001
#: Of a file, in bytes, and of files.
MIN_SIZE, MAX_FILES = 64 * 1024, 1000
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def keep(containers: "Containers", container: "Container", process: Process) -> None:
    """Keeps what a process writes from now on; when it has ended, all that it wrote."""
    own, settings = container.config.spec.log, containers.settings
    size = own.max_size_bytes or bytes_of(settings.log_max_size)
    limits = LogLimits(max_size_bytes=size, max_files=own.max_files or int(settings.log_max_files))
    began = container.state.started_at.ToNanoseconds()
    container.log = LogWriter(process, container.folder / "log", limits, began)
    container.resources.push_async_callback(container.log.finish)


def bytes_of(text: str) -> int:
    """Bytes that a setting says, "10m" or "65536". ValueError."""
    if not (match := re.fullmatch(r"(\d{1,12})([kmg]?)b?", text.lower())):
        raise ValueError(f"{text!r} is no size: write a number of bytes, or one with k, m or g")
    return int(match[1]) * _UNITS[match[2]]


def check(size: str, files: str) -> None:
    """ValueError when settings are none."""
    if bytes_of(size) < MIN_SIZE or not (files.isdigit() and 1 <= int(files) <= MAX_FILES):
        raise ValueError(f"a log has 1 to {MAX_FILES} files of at least 64k")


class LogWriter:
    """Copies both pipes of a process into files until both have ended."""

    def __init__(self, process: Process, path: Path, limits: LogLimits, began: int = 0) -> None:
        self._path, self._limits = path, limits
        self._open = {
            fd: name for fd, name in ((process.stderr, b"stderr"), (process.stdout, b"stdout")) if fd >= 0
        }
        #: The time of the last entry; none is before the start of the process, whatever is done to the clock.
        self._last = began
        #: Bytes that could not be written, and why.
        self._lost, self._why = 0, ""
        self._resuming: asyncio.TimerHandle | None = None
        self._begin()
        self.ended = asyncio.Event()
        #: Set, and replaced by a new one, whenever something was written.
        self.written = asyncio.Event()
        for fd in self._open:
            os.set_blocking(fd, False)
        self._resume()

    def _begin(self) -> None:
        """Goes on in the file that is there. What was cut off in its last entry ends there."""
        self._file = os.open(self._path, _FLAGS, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._write(b"\n")

    def _resume(self) -> None:
        self._resuming = None
        for fd in self._open:
            asyncio.get_running_loop().add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> None:
        began = time.monotonic()
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # the end of a terminal (EIO)
            data = b""
        if not data:
            self._stop(fd)
            return
        self._keep(self._open[fd], data)
        if (took := time.monotonic() - began) > LONG and not self._resuming:
            loop = asyncio.get_running_loop()
            for each in self._open:  # both, or one would overtake the other
                loop.remove_reader(each)
            self._resuming = loop.call_later(took, self._resume)

    def _keep(self, stream: bytes, data: bytes) -> None:
        self._last = max(self._last, time.time_ns())
        whole, newline, rest = data.rpartition(b"\n")
        head, out = b"%d %s " % (self._last, stream), b""
        if newline:
            full = head + b"F "
            out = full + whole.replace(b"\n", b"\n" + full) + b"\n"
        if rest:
            out += head + b"P " + rest + b"\n"
        if self._lost:
            told = f"[tinyo: {self._lost} bytes were lost here: {self._why}]"
            out = b"%d stderr F %s\n" % (self._last, told.encode()) + out
        if self._write(out):
            self._lost = 0
        else:
            self._lost += len(data)
        self.written.set()
        self.written = asyncio.Event()

    def _write(self, out: bytes) -> bool:
        """All of it or nothing; a container goes on when its log cannot."""
        try:
            if self._size and self._size + len(out) > self._limits.max_size_bytes:
                self._rotate()
            done = os.write(self._file, out)
            if done < len(out):  # the disk has become full; once more, to hear why
                os.write(self._file, out[done:])  # raises
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            if not self._lost:
                log.warning("%s cannot be written: %s", self._path, error.strerror)
            self._why = error.strerror or ""
            return False
        self._size += len(out)
        return True

    def _rotate(self) -> None:
        """Whoever reads holds on to the file that he is at."""
        count, new = self._limits.max_files, self._path.with_name("log.new")
        file = os.open(new, _FLAGS | os.O_TRUNC, 0o600)  # first: the disk may be full
        for number in range(count - 1, 0, -1):
            old = self._path.with_name(f"log.{number - 1}") if number > 1 else self._path
            with contextlib.suppress(FileNotFoundError):
                old.rename(self._path.with_name(f"log.{number}"))
        for path in self._path.parent.glob("log.*"):  # the limit was higher before
            if path.suffix[1:].isdigit() and int(path.suffix[1:]) >= count:
                path.unlink()
        new.rename(self._path)
        os.close(self._file)
        self._file, self._size = file, 0

    def _stop(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        del self._open[fd]
        if not self._open:
            if self._resuming:
                self._resuming.cancel()
            os.close(self._file)
            self.ended.set()

    async def finish(self) -> None:
        """The process has ended: reads what is left in its pipes."""
        with contextlib.suppress(TimeoutError):  # something outside of the container holds a pipe
            await asyncio.wait_for(self.ended.wait(), 1)
        for fd in list(self._open):
            self._stop(fd)
