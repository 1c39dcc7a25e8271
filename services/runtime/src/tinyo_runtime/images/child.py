"""The confined process that unpacks: it never outlives who started it, and never makes him wait in vain."""

import asyncio
import signal
from pathlib import Path
from types import TracebackType

from tinyo_runtime.images import progress

#: Seconds in which it must do anything when there is something to do; a disk may be slow.
PATIENCE = 300.0


class Died(Exception):
    """It ended without having said why; the text says what happened to it, and what to do."""


def silence(process: asyncio.subprocess.Process) -> None:
    """Nobody hears any more what it says. asyncio does not tell of the end of a process before all was read, and does
    not read when there is more than somebody wanted."""
    if pipe := process._transport.get_pipe_transport(1):  # type: ignore[attr-defined]
        pipe.close()


class ended:
    """Afterwards the process has ended: by itself, or killed when what was done meanwhile failed, or when it was stuck.

    A process that does not want to read the rest has said why on its standard output: that is no failure here. But
    Died is raised when a signal ended it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stuck = False
        self._layer = progress.current()

    async def __aenter__(self) -> None:
        self._layer.unpacker = self._process
        self._watching = asyncio.create_task(self._watch())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        stopped_reading = isinstance(error, BrokenPipeError | ConnectionResetError)
        try:
            if error and not stopped_reading:
                self._kill()
            elif self._process.stdin:
                self._process.stdin.close()
            await self._process.wait()
        except BaseException:
            self._kill()
            await self._process.wait()
            raise
        finally:
            self._watching.cancel()
        if (not error or stopped_reading) and (code := self._process.returncode) is not None and code < 0:
            await self._process.communicate(b"")  # which gives back what it was connected with
            raise Died(self._why(-code))
        return stopped_reading

    async def _watch(self) -> None:
        """Kills it when it does nothing, although something is written to it or it was told to end."""
        done, never = b"", asyncio.get_running_loop().create_future()
        while True:
            await asyncio.wait([never], timeout=PATIENCE)  # other than sleep, nobody makes that shorter
            stdin = self._process.stdin
            busy = stdin is None or stdin.is_closing() or stdin.transport.get_write_buffer_size() > 0
            now = self._activity() if busy else b""
            if busy and now == done:
                self._stuck = True
                self._kill()
                return
            done = now

    def _activity(self) -> bytes:
        """What changes when it reads, writes or computes (proc_pid_io(5), proc_pid_stat(5))."""
        proc = Path(f"/proc/{self._process.pid}")
        try:
            return (proc / "io").read_bytes() + b"".join(
                (proc / "stat").read_bytes().rpartition(b")")[2].split()[11:13]
            )
        except (FileNotFoundError, ProcessLookupError):
            return b"ended"

    def _why(self, number: int) -> str:
        if self._stuck:
            return f"it did nothing for {PATIENCE:.0f} seconds and was killed: is the disk stuck?"
        if number == signal.SIGXCPU:
            return "it took too much processor time"
        why = ", as happens when memory runs out: free some and try again" if number == signal.SIGKILL else ""
        return f"it was ended by signal {number} ({signal.Signals(number).name}){why}"

    def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            if isinstance(self._process, asyncio.subprocess.Process):
                silence(self._process)
