"""Reading a container's log files: from any point of them, found without reading what lies before, and following.

Everything between two `await`s sees the files as they are: it is this loop that writes to them.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.timestamp_pb2 import Timestamp
from tinyo.v1.stream_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, LogEntry

from tinyo_runtime.containers import Container

#: Entries, and bytes, in one message of the stream.
BATCH, BATCH_BYTES = 256, 512 * 1024
STREAMS = {b"stdout": OUTPUT_STREAM_STDOUT, b"stderr": OUTPUT_STREAM_STDERR}
#: Bytes that are looked at at once on the way back from the end, or when a time is looked for.
BLOCK = 64 * 1024
#: After every time.
END = 1 << 63


async def read(
    container: Container,
    *,
    tail: int | None = None,
    follow: bool = False,
    since: Timestamp | None = None,
    until: Timestamp | None = None,
) -> AsyncGenerator[list[LogEntry], None]:
    """Entries in batches; with `follow` until the process has ended and everything was read."""
    first = since.ToNanoseconds() if since else 0
    last = until.ToNanoseconds() if until else END

    def wanted(batch: list[LogEntry]) -> list[LogEntry]:
        return [entry for entry in batch if first <= entry.time.ToNanoseconds() < last]

    file = start(container.folder, tail, first)
    try:
        while True:
            ended, news = container.process is None, False
            for batch in batches(file):
                news = True
                if kept := wanted(batch):
                    yield kept
                if batch[-1].time.ToNanoseconds() >= last:
                    return
            if after := following(container.folder, file):
                for batch in batches(file):  # what was written to it since, before the next one began
                    if kept := wanted(batch):
                        yield kept
                file.close()
                file = after
                continue
            if news and follow:  # more may have been written while that was taken
                continue
            if not follow or ended or time.time_ns() >= last:
                return
            await grown(container, last)
    finally:
        file.close()


def files(folder: Path) -> list[Path]:
    """The oldest first."""
    found = [path for path in folder.glob("log.*") if path.suffix[1:].isdigit()]
    return [*sorted(found, key=lambda path: -int(path.suffix[1:])), folder / "log"]


def start(folder: Path, tail: int | None, first: int) -> BinaryIO:
    """The file where reading begins, at the place where it begins."""
    (folder / "log").touch(0o600)
    paths = files(folder)
    opened = [path.open("rb") for path in paths]
    chosen = opened[0]
    if tail is not None:
        for chosen in reversed(opened):
            if not (tail := back(chosen, tail, newest=chosen is opened[-1])):
                break
    elif first:
        for chosen in reversed(opened):
            if begins(chosen, 0) < first:
                break
        find(chosen, first)
    for file in opened:
        if file is not chosen:
            file.close()
    return chosen


def following(folder: Path, file: BinaryIO) -> BinaryIO | None:
    """The file after this one; the oldest that is left, when it is gone. None when it is the last."""
    own = _inode(file)
    opened = [path.open("rb") for path in files(folder) if path.exists()]
    numbers = [_inode(one) for one in opened]
    at = numbers.index(own) + 1 if own in numbers else 0
    chosen = opened[at] if at < len(opened) else None
    for one in opened:
        if one is not chosen:
            one.close()
    return chosen


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def back(file: BinaryIO, lines: int, *, newest: bool) -> int:
    """Goes to where the last so many lines begin; how many are missing when the file has fewer. A line may be of
    several entries; the last one of the newest file may have no end yet."""
    if not lines:
        file.seek(0, 2)
        return 0
    wanted, counts = lines, newest
    for place, entry in backwards(file):
        if is_end(entry) or counts:
            if not wanted:
                file.seek(place + len(entry) + 1)
                return 0
            wanted -= 1
        counts = False
    file.seek(0)
    return wanted


def backwards(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Complete entries with the places where they begin, from the last to the first."""
    at, rest = file.seek(0, 2), b""
    is_last = True
    while at:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        parts = (file.read(size) + rest).split(b"\n")
        place = at + sum(map(len, parts)) + len(parts)
        rest = parts.pop(0) if at else b""
        for part in reversed(parts):
            place -= len(part) + 1
            if not is_last:  # after the last newline there is nothing, or what is not complete
                yield place, part
            is_last = False


def is_end(line: bytes) -> bool:
    """Whether an entry ends a line of the container's."""
    return line.split(b" ", 3)[2:3] == [b"F"]


def find(file: BinaryIO, first: int) -> None:
    """Goes to some place before the first entry of that time or later, near it: by bisection."""
    low, high = 0, file.seek(0, 2)
    while high - low > BLOCK:
        middle = (low + high) // 2
        if begins(file, middle) < first:
            low = middle
        else:
            high = middle
    file.seek(low)
    if low:
        file.readline()


def begins(file: BinaryIO, at: int) -> int:
    """The time of the first entry that begins after a place; without end when there is none."""
    file.seek(at)
    if at:
        file.readline()
    for line in iter(file.readline, b""):
        if entry := parse(line):
            return entry.time.ToNanoseconds()
    return END


def batches(file: BinaryIO) -> Iterator[list[LogEntry]]:
    """What the file has from where it stands; a line that is not complete yet stays for the next time."""
    entries: list[LogEntry] = []
    count = 0
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            break
        if entry := parse(line):
            entries.append(entry)
            count += len(line)
        if len(entries) == BATCH or count > BATCH_BYTES:
            yield entries
            entries, count = [], 0
    if entries:
        yield entries


def parse(line: bytes) -> LogEntry | None:
    """One line of the file, as logs.py writes it. None for what is left of one that a crash cut off."""
    try:
        nanoseconds, stream, part, data = line.split(b" ", 3)
        entry = LogEntry(stream=STREAMS[stream], data=data if part == b"F" else data[:-1])
        entry.time.FromNanoseconds(int(nanoseconds))
    except (ValueError, KeyError, OverflowError):
        return None
    return entry


async def grown(container: Container, last: int) -> None:
    """Returns when more was written, the process has ended, or it is that late."""
    if container.ending and container.log:
        written = asyncio.ensure_future(container.log.written.wait())
        waits: list[asyncio.Future[Any]] = [container.ending, written]
        patience = None if last == END else max(0, last - time.time_ns()) / 1e9
        try:
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            written.cancel()
