"""Attacks on whoever runs `exec -t`, or a container with `tty: true`: what is found where terminals are made is not the kernel's but somebody's.

An image cannot put anything there, because devpts covers it; what is mounted there can be anything.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import ExitStatus
from tinyo_runtime import consoles, terminals
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.failures import SpawnError
from tinyo_runtime.spawnclient import Process
from tinyo_runtime.spawner import protocol, syscalls

from tests.support.box import Box, Exit, InBox

PTMX = "/dev/pts/ptmx"


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A terminal of the host: its master, and where its slave is."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


async def start(
    box: Box, *mounts: tuple[str, str], console: int = -1, argv: tuple[str, ...] = ("cat",)
) -> Process:
    """A container with (source, target) mounted; with `console`, where its terminal is to be sent."""
    fds, listed = [box.netns], []
    for source, target in mounts:
        listed.append((target, len(fds), os.path.isdir(source)))
        fds.append(syscalls.open_tree(syscalls.AT_FDCWD, source))
    plan = box.plan("t" if console >= 0 else "c", *argv, mounts=listed)
    if console >= 0:
        plan["terminal"] = {"console": len(fds), "rows": 24, "columns": 80}
    try:
        return await box.client.start(plan, [*fds, *([console] if console >= 0 else [])], keep=True)
    finally:
        for fd in fds[1:]:
            os.close(fd)


async def refused(box: Box, *mounts: tuple[str, str]) -> SpawnError:
    """Why a container with these mounts gets no terminal; nobody was sent one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs, pytest.raises(SpawnError) as caught:
            await asyncio.wait_for(start(box, *mounts, console=theirs.fileno()), 20)
        assert protocol.receive(ours) is None
    return caught.value


async def join(box: Box, container: Process, *argv: str) -> tuple[Process, int]:
    """A program with a terminal in a container, and the terminal's master."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        told = {"console": 1, "rows": 24, "columns": 80}
        plan = box.joining("e", *argv) | {"terminal": told}
        process = await box.client.start(plan, [container.pidfd, theirs.fileno()], keep=False)
        received = protocol.receive(ours)
    assert received
    return process, received[1][0]


async def by_path(box: Box, container: Process) -> ExitStatus:
    """How it ends to write to whatever the path leads to, as one would without looking."""
    process = await box.join(container, "naive", "sh", "-c", f"echo attacked 1<>{PTMX}")
    return await asyncio.wait_for(process.exited, 20)


def test_the_multiplexer_is_not_what_was_mounted_over_it(box: InBox, terminal: tuple[int, str]) -> None:
    """A terminal of the host, bound onto it, would be lent to the program."""
    master, slave = terminal

    async def check(box: Box) -> None:
        container = await start(box, (slave, PTMX))
        with pytest.raises(SpawnError) as caught:
            await join(box, container, "echo", "attacked")
        own = await refused(box, (slave, PTMX))
        for found in (caught.value, own):
            assert (found.step, found.errno) == ("open_terminal", errno.EXDEV)
        with pytest.raises(BlockingIOError):
            os.read(master, 100)
        assert await by_path(box, container) == Exit(0, 0)
        assert os.read(master, 100) == b"attacked\r\n", "the attack is one"

    box(check)


def test_terminals_do_not_come_from_another_devpts(box: InBox) -> None:
    """The host's multiplexer makes the host's terminals."""

    async def check(box: Box) -> None:
        container = await start(box, (PTMX, PTMX))
        before = os.listdir("/dev/pts")
        with pytest.raises(SpawnError) as caught:
            await join(box, container, "true")
        own = await refused(box, (PTMX, PTMX))
        for found in (caught.value, own):
            assert (found.step, found.errno) == ("open_terminal", errno.EXDEV)
        assert os.listdir("/dev/pts") == before
        assert await by_path(box, container) == Exit(0, 0), "the attack is one"

    box(check)


@pytest.mark.parametrize("kind", ["link", "fifo", "file", "device", "nothing"])
def test_a_folder_in_the_place_of_devpts_is_refused(
    box: InBox, tmp_path: Path, terminal: tuple[int, str], kind: str
) -> None:
    """Nothing in it is opened: a fifo could be waited for, a link leads to the host's terminal."""
    master, slave = terminal
    folder = tmp_path / "pts"
    folder.mkdir()
    (folder / "host").touch()
    match kind:
        case "link":
            (folder / "ptmx").symlink_to("host")
        case "fifo":
            os.mkfifo(folder / "ptmx")
        case "file":
            (folder / "ptmx").touch()
        case "device":
            os.mknod(folder / "ptmx", 0o20666, os.makedev(5, 2))

    async def check(box: Box) -> None:
        mounts = ((str(folder), "/dev/pts"), (slave, "/dev/pts/host"))
        container = await start(box, *mounts)
        with pytest.raises(SpawnError) as caught:
            await asyncio.wait_for(join(box, container, "echo", "attacked"), 20)
        for found in (caught.value, await refused(box, *mounts)):
            assert (found.step, found.errno, found.about) == ("open_terminal", errno.ENODEV, "/dev/pts")
        if kind == "link":
            assert await by_path(box, container) == Exit(0, 0)
            assert os.read(master, 100) == b"attacked\r\n", "the attack is one"

    box(check)


def test_a_spawner_that_knows_no_terminals_is_told_as_such(box: InBox) -> None:
    """It does not read that part of a plan, and lives as long as its containers; nothing of the start stays."""

    async def check(box: Box) -> None:
        container = await start(box)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            process = await box.join(container, "e", "cat")
            with pytest.raises(TinyoError, match="the spawner that runs is of a version without terminals"):
                terminals.take(box.client, process, ours)
        assert await asyncio.wait_for(process.exited, 20) == Exit(137, 9)

    box(check)


def test_nothing_of_the_way_of_its_terminal_stays_in_a_container(box: InBox) -> None:
    """Neither the socket that it was sent over nor the master: whoever has that reads what is typed for others, and can
    make a terminal hang up."""

    async def check(box: Box) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = "for fd in /proc/1/fd/*; do readlink $fd; done; echo end; cat"
        with ours:
            with theirs:
                await start(box, console=theirs.fileno(), argv=("sh", "-c", script))
            received = protocol.receive(ours)
            assert received
            (master,) = received[1]
            assert protocol.receive(ours) is None, "nobody has the other end any more"
        said = b""
        while not said.endswith(b"end\r\n"):
            said += await asyncio.to_thread(os.read, master, 1000)
        os.close(master)
        assert set(said.split()) == {b"/dev/pts/0", b"end"}

    box(check)


async def said(box: Box, script: str, *mounts: tuple[str, str]) -> list[bytes]:
    """The lines that a script says on a terminal of its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            await start(box, *mounts, console=theirs.fileno(), argv=("sh", "-c", f"{script}; echo end; cat"))
        received = protocol.receive(ours)
    assert received
    (master,) = received[1]
    text = b""
    while not text.endswith(b"end\r\n"):
        text += await asyncio.to_thread(os.read, master, 1000)
    os.close(master)
    return text.splitlines()[:-1]


def owned(path: Path) -> tuple[int, int, int, float]:
    """Mode, owner and time of the last change of a file."""
    found = os.stat(path)
    return found.st_mode, found.st_uid, found.st_gid, found.st_ctime


def test_the_console_is_the_containers_own_terminal(box: InBox) -> None:
    async def check(box: Box) -> None:
        script = "busybox stat -c %t:%T,%u,%a,%i /dev/console /dev/pts/0; echo out >/dev/console"
        console, terminal, out = await said(box, script)
        assert console == terminal and console.startswith(b"88:0,0,620,")
        assert out == b"out"

    box(check)


def test_only_who_has_a_terminal_has_a_console(box: InBox) -> None:
    async def check(box: Box) -> None:
        assert await box.run("test -e /dev/console || echo none") == (Exit(0, 0), "none\n")

    box(check)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_console_lies_on_nothing_that_was_mounted(box: InBox, tmp_path: Path, kind: str) -> None:
    """A folder in the place of /dev chooses where /dev/console leads: there is the script that others run, or a file of
    the host. Nothing of the terminal gets there."""
    dev = tmp_path / "dev"
    (dev / "pts").mkdir(parents=True)
    (dev / "target").write_text("mine\n")
    if kind == "link":
        (dev / "console").symlink_to("target")
    else:
        (dev / "console").hardlink_to(dev / "target")
    before = owned(dev / "target")

    async def check(box: Box) -> None:
        mounts = ((str(dev), "/dev"), ("/dev/pts", "/dev/pts"))
        assert await said(box, "cat /dev/console; cat /dev/target", *mounts) == [b"mine", b"mine"]
        assert owned(dev / "target") == before
        script = "echo attacked >/dev/console"
        container = await start(box, *mounts)
        process = await box.join(container, "naive", "sh", "-c", script)
        assert await asyncio.wait_for(process.exited, 20) == Exit(0, 0)
        assert (dev / "target").read_text() == "attacked\n", "the way there is one"

    box(check)


def test_a_file_that_was_mounted_as_the_console_stays_as_it_is(box: InBox, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine\n")
    before = owned(file)

    async def check(box: Box) -> None:
        assert await said(box, "echo out >/dev/console", (str(file), "/dev/console")) == [b"out"]
        assert (file.read_text(), owned(file)) == ("mine\n", before)

    box(check)


def test_a_terminal_that_nobody_has_hangs_up(box: InBox) -> None:
    """That is why it is kept by the spawner; see tests/e2e/test_attach.py for what comes of that."""

    async def check(box: Box) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = await start(box, console=theirs.fileno())
            received = protocol.receive(ours)
            assert received
        os.close(received[1][0])
        # The end, or EIO when it is woken before the terminal has hung up.
        assert await asyncio.wait_for(process.exited, 20) in (Exit(0, 0), Exit(1, 0)), (
            "cat does not wait any more"
        )

    box(check)


def test_a_terminal_is_there_for_a_runtime_that_was_killed_before_it_took_it(box: InBox) -> None:
    """It stays in the socket that the spawner keeps: looking into that takes nothing out of it."""

    async def check(box: Box) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = await start(box, console=theirs.fileno(), argv=("sh", "-c", "read x; exit 3"))
            pipes = [os.dup(fd) for fd in (process.pidfd, process.stdin, process.stdout, process.stderr)]
            for _ in range(2):
                first = consoles.peek(ours.fileno())
                assert os.isatty(first)
                os.close(first)
            pidfd, stdin, stdout, stderr = consoles.known([*pipes, os.dup(ours.fileno())])
        assert (os.isatty(stdin), os.isatty(stdout), stderr) == (True, True, -1)
        os.write(stdin, b"\n")
        assert await asyncio.wait_for(process.exited, 20) == Exit(3, 0)
        for fd in (pidfd, stdin, stdout):
            os.close(fd)

    box(check)
