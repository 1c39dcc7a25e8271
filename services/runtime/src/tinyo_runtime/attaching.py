"""Clients at a container's own streams: their input goes into its process, and the log is what they read.

Whatever the process writes is in the log as soon as it was read, so a client that reads slowly finds it there, holds
nobody up, and costs no memory; what it misses is only what was rotated away before it came to it.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tinyo.runtime.v1.runtime_pb2 import AttachRequest, AttachStart
from tinyo.v1.container_pb2 import ExitStatus
from tinyo.v1.stdin_pb2 import STANDARD_INPUT_CLOSED, STANDARD_INPUT_ONCE
from tinyo.v1.stream_pb2 import OUTPUT_STREAM_STDERR, ExecOutput, LogEntry, TerminalSize

from tinyo_runtime import execs, failures, logreader, terminals
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.errors import Context, TinyoError
from tinyo_runtime.spawnclient import Process

#: One client at a time writes into a process, by the container's id: two who wait at a full pipe would not both be woken.
_writing: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()


async def run(
    containers: Containers, requests: AsyncIterator[AttachRequest], context: Context
) -> AsyncGenerator[ExecOutput, None]:
    """Output as it comes, then the exit. A client that goes away leaves the process as it is. That there is something
    to attach to is told by the initial metadata."""
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("request") != "start":
        raise TinyoError(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", "the first message must say which container"
        )
    start, container = first.start, containers.get(first.start.id)
    process = container.process
    ended = container.state.HasField("exit")
    if not process and not (start.attach.from_start and ended):
        raise failures.not_running(container.config.spec.name)
    await context.send_initial_metadata(())
    if process and start.attach.HasField("size"):
        redraw(process, start.attach.size)
    client = Client(containers, container, process, start) if process else None
    input = asyncio.ensure_future(client.feed(requests)) if client else None
    try:
        async with contextlib.aclosing(written(container, start)) as entries:
            async for batch in entries:
                for output in outputs(batch):
                    yield output
        yield ExecOutput(exit=await how(container, process))
        if input:
            await asyncio.wait([input], timeout=execs.PATIENCE)
    finally:
        if input:
            input.cancel()
            await asyncio.gather(input, return_exceptions=True)


def written(container: Container, start: AttachStart) -> AsyncGenerator[list[LogEntry], None]:
    """What the process writes from now on, or all that it has written, until it has ended."""
    if not start.attach.from_start:
        return logreader.read(container, tail=0, follow=True)
    since = Timestamp()
    since.CopyFrom(container.state.started_at)
    return logreader.read(container, since=since, follow=True)


def outputs(batch: list[LogEntry]) -> list[ExecOutput]:
    """Entries as output: those that follow each other on one stream are one piece."""
    runs = itertools.groupby(batch, lambda entry: entry.stream == OUTPUT_STREAM_STDERR)
    pieces = [(is_error, b"".join(entry.data for entry in entries)) for is_error, entries in runs]
    return [ExecOutput(stderr=data) if is_error else ExecOutput(stdout=data) for is_error, data in pieces]


async def how(container: Container, process: Process | None) -> ExitStatus:
    """How the process ended."""
    return await asyncio.shield(process.exited) if process else container.state.exit


def redraw(process: Process, size: TerminalSize) -> None:
    """The terminal has this size, and who draws on it does so anew: two changes, as docker does it, because one that is
    none is not told (SIGWINCH)."""
    terminals.resize(process, TerminalSize(rows=size.rows + 1, columns=size.columns))
    terminals.resize(process, size)


class Client:
    """One who sends input."""

    def __init__(
        self, containers: Containers, container: Container, process: Process, start: AttachStart
    ) -> None:
        self._containers, self._process = containers, process
        self._stdin = container.config.spec.stdin
        self._silent = start.attach.no_stdin or self._stdin == STANDARD_INPUT_CLOSED
        self._lock = _writing.setdefault(start.id, asyncio.Lock())

    async def feed(self, requests: AsyncIterator[AttachRequest]) -> None:
        """Passes input and signals on until the client goes."""
        try:
            async for request in requests:
                match request.input.WhichOneof("input"):
                    case "stdin" if not self._silent:
                        await self._write(request.input.stdin)
                    case "end_of_input":
                        await self._write(b"" if self._silent else self._end_of_file())
                        self._end()
                    case "signal":
                        self._process.kill(request.input.signal)
                    case "resize":
                        terminals.resize(self._process, request.input.resize)
        finally:
            self._end()

    async def _write(self, data: bytes) -> None:
        """All of it, waiting while the process does not read, as long as there is somebody who could."""
        async with self._lock:
            os.set_blocking(self._process.stdin, False)
            while data and not self._process.exited.done():
                try:
                    data = data[os.write(self._process.stdin, data) :]
                except BlockingIOError:
                    add = asyncio.get_running_loop().add_writer
                    await execs.ready(self._process.stdin, add, self._process.exited)
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.EIO):
                        raise
                    return

    def _end_of_file(self) -> bytes:
        """What ends the input of a terminal."""
        return terminals.end_of_file(self._process) if self._stdin == STANDARD_INPUT_ONCE else b""

    def _end(self) -> None:
        """Where input comes from one client alone it ends with that one. The spawner has the pipe too, and closes it."""
        process = self._process
        is_pipe = not os.isatty(process.stdin)
        if self._silent or self._stdin != STANDARD_INPUT_ONCE or not is_pipe or process.exited.done():
            return
        self._silent = True
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nothing, process.stdin, inheritable=False)
        os.close(nothing)
        self._containers.spawner.keeper.adopt(process, keep=True)
