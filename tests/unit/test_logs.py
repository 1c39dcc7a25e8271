"""Logs: what goes into the files of one, and what comes out of them, with real pipes and files."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tinyo.v1.log_pb2 import LogLimits
from tinyo_runtime import logreader, logs
from tinyo_runtime.spawnclient import Process


class Written:
    """A log, and the ends of the pipes that a container has."""

    def __init__(self, folder: Path, size: int = 64 * 1024, files: int = 3) -> None:
        (out, self.out), (err, self.err) = os.pipe(), os.pipe()
        self.folder = folder
        self.log = logs.LogWriter(
            Process("c", 0, -1, -1, out, err), folder / "log", LogLimits(max_size_bytes=size, max_files=files)
        )
        self.ending = asyncio.get_running_loop().create_future()
        #: What a reader knows of a container.
        self.container: Any = SimpleNamespace(folder=folder, process=self, ending=self.ending, log=self.log)

    async def write(self, data: bytes, *, error: bool = False) -> None:
        """All of it, in the pace of who reads the pipe; returns when it is in the file."""
        written = self.log.written
        await asyncio.to_thread(os.write, self.err if error else self.out, data)
        await written.wait()

    async def end(self) -> None:
        os.close(self.out)
        os.close(self.err)
        await self.log.finish()
        self.container.process = None
        self.ending.set_result(None)


def run(folder: Path, use: Callable[[Written], Awaitable[None]], **limits: int) -> None:
    async def main() -> None:
        await use(Written(folder, **limits))

    asyncio.run(main())


async def content(written: Written, **how: Any) -> bytes:
    return b"".join([entry.data async for entry in entries(written, **how)])


async def entries(written: Written, **how: Any) -> AsyncIterator[Any]:
    async for batch in logreader.read(written.container, **how):
        for entry in batch:
            yield entry


def test_bytes_come_out_as_they_went_in(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300 + b"\r\n\n\n" + b"x" * 200_000 + b"\nno end"

    async def use(written: Written) -> None:
        await written.write(data)
        await written.end()
        assert await content(written) == data

    run(tmp_path, use, size=1 << 20)


def test_the_beginning_of_a_line_is_kept_at_once(tmp_path: Path) -> None:
    async def use(written: Written) -> None:
        await written.write(b"login: ")
        assert await content(written) == b"login: "
        await written.write(b"root\n")
        await written.write(b"no\n", error=True)
        assert [(one.stream, one.data) async for one in entries(written)] == [
            (1, b"login: "), (1, b"root\n"), (2, b"no\n"),
        ]  # fmt: skip
        await written.end()

    run(tmp_path, use)


def test_nothing_is_lost_at_the_seam_while_somebody_follows(tmp_path: Path) -> None:
    lines = [b"%06d %s\n" % (number, b"x" * 90) for number in range(20_000)]

    async def use(written: Written) -> None:
        following = asyncio.ensure_future(content(written, follow=True))
        for at in range(0, len(lines), 100):
            await written.write(b"".join(lines[at : at + 100]))
        await written.end()
        assert await following == b"".join(lines)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * (64 << 10)
        kept = (await content(written)).splitlines(keepends=True)
        assert kept == lines[-len(kept) :] and len(kept) > 500

    run(tmp_path, use)


def test_a_reader_that_is_slow_holds_on_to_its_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async def use(written: Written) -> None:
        await written.write(b"first\n")
        reader = logreader.read(written.container, follow=True)
        assert [entry.data for entry in await anext(reader)] == [b"first\n"]
        for number in range(30):
            await written.write(b"%02d%s\n" % (number, b"x" * 10_000))
        await written.end()
        rest = [entry.data async for batch in _each(reader) for entry in batch if entry.data[-1:] == b"\n"]
        assert rest[-1].endswith(b"x\n") and rest[0].startswith(b"00")

    run(tmp_path, use)


async def _each(reader: Any) -> AsyncIterator[Any]:
    async for batch in reader:
        yield batch


@pytest.mark.parametrize("lines", [0, 1, 3, 700, 1500, 5000])
def test_the_last_lines_are_found_from_the_end(tmp_path: Path, lines: int) -> None:
    async def use(written: Written) -> None:
        for at in range(0, 2000, 50):
            await written.write(b"".join(b"%d %s\n" % (at + i, b"x" * (at % 97)) for i in range(50)))
        await written.write(b"par")
        await written.write(b"tial\n")
        await written.end()
        everything = (await content(written)).splitlines(keepends=True)
        expected = everything[-lines:] if lines else []
        assert (await content(written, tail=lines)).splitlines(keepends=True) == expected

    run(tmp_path, use)


def test_times_are_found_by_bisection_across_files(tmp_path: Path) -> None:
    def line(number: int) -> bytes:
        return b"%d stdout F %d\n" % (number * 10**9, number)

    (tmp_path / "log.2").write_bytes(b"".join(map(line, range(1000, 9000))))
    (tmp_path / "log.1").write_bytes(b"".join(map(line, range(9000, 20000))))
    (tmp_path / "log").write_bytes(b"".join(map(line, range(20000, 21000))))

    async def use(written: Written) -> None:
        await written.end()
        for since, until in (
            (0, 30000),
            (5000, 5003),
            (8999, 9002),
            (19999, 20001),
            (20500, 40000),
            (50000, 60000),
        ):
            found = await content(written, since=Timestamp(seconds=since), until=Timestamp(seconds=until))
            expected = range(max(since, 1000), max(since, min(until, 21000)))
            assert found == b"".join(b"%d\n" % number for number in expected)

    run(tmp_path, use, size=10 << 20)


@pytest.mark.parametrize(
    "end", [b"1700000000000000000 stdout F cut o", b"17000000", b"17 stdout P", b"\0\0\0"]
)
def test_an_entry_that_a_crash_cut_off_costs_no_other(tmp_path: Path, end: bytes) -> None:
    whole = b"1700000000000000000 stdout F before\n"
    (tmp_path / "log").write_bytes(whole + end)

    async def use(written: Written) -> None:
        await written.write(b"after\n")
        await written.end()
        found = (await content(written)).splitlines()
        assert (found[0], found[-1]) == (b"before", b"after")
        assert len(found) == 2 + (b"cut" in end)

    run(tmp_path, use)


def test_a_full_disk_is_counted_told_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of a file's size stands for a disk: what fits is written, and then nothing."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(logs.log, "warning", lambda *told: warnings.append(told))
    warnings: list[Any] = []

    async def use(written: Written) -> None:
        await written.write(b"fits\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        for _ in range(3):
            await written.write(b"x" * 99 + b"\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await written.write(b"goes on\n")
        await written.end()
        why = os.strerror(errno.EFBIG)
        told = f"[tinyo: 300 bytes were lost here: {why}]\n".encode()
        assert await content(written) == b"fits\n" + told + b"goes on\n"
        assert len(warnings) == 1

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        run(tmp_path, use)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_log_that_floods_leaves_the_loop_to_others(tmp_path: Path) -> None:
    """A flood of empty lines is the most work: others must get their turns between any two pieces of it."""

    async def use(written: Written) -> None:
        flood = b"\n" * (1 << 18)
        writing = asyncio.ensure_future(asyncio.to_thread(os.write, written.out, flood))
        turns = 0
        while not writing.done():
            await asyncio.sleep(0)
            turns += 1
        await written.end()
        assert turns > len(flood) // logs.CHUNK
        assert await content(written) == flood

    run(tmp_path, use, size=1 << 30)


def test_sizes_are_checked() -> None:
    assert (logs.bytes_of("10m"), logs.bytes_of("65536")) == (10 << 20, 65536)
    for size, files in (("10", "3"), ("x", "3"), ("10m", "0"), ("10m", "x")):
        with pytest.raises(ValueError):
            logs.check(size, files)
