"""Reading a container's log file: from the beginning or the end, and following it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from tinyo.v1.stream_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, LogEntry

from tinyo_runtime.containers import Container

#: Entries in one message of the stream.
BATCH = 256
STREAMS = {b"stdout": OUTPUT_STREAM_STDOUT, b"stderr": OUTPUT_STREAM_STDERR}


async def read(container: Container, *, tail: int | None, follow: bool) -> AsyncIterator[list[LogEntry]]:
    """Entries in batches; with `follow` until the process has ended and everything was read."""
    path = container.folder / "log"
    if not path.exists():
        path.touch(0o600)
    with path.open("rb") as file:
        if tail is not None:
            last: deque[LogEntry] = deque(maxlen=tail)
            for batch in batches(file):
                last.extend(batch)
            if last:
                yield list(last)
        while True:
            ended = container.process is None
            for batch in batches(file):
                yield batch
            if not follow or ended:
                return
            await grown(container)


def batches(file: BinaryIO) -> Iterator[list[LogEntry]]:
    """What the file has from where it stands; a line that is not complete yet stays for the next time."""
    entries: list[LogEntry] = []
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            break
        entries.append(parse(line))
        if len(entries) == BATCH:
            yield entries
            entries = []
    if entries:
        yield entries


def parse(line: bytes) -> LogEntry:
    """One line of the file, as logs.py writes it."""
    nanoseconds, stream, part, data = line.split(b" ", 3)
    entry = LogEntry(stream=STREAMS[stream], data=data if part == b"F" else data[:-1])
    entry.time.FromNanoseconds(int(nanoseconds))
    return entry


async def grown(container: Container) -> None:
    """Returns when more was written, or the process has ended."""
    if container.ending and container.log:
        written = asyncio.ensure_future(container.log.written.wait())
        waits: list[asyncio.Future[Any]] = [container.ending, written]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            written.cancel()
