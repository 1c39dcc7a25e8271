"""A spawner on the real kernel, for tests: a root file system of busybox, no image, no network."""

import asyncio
import contextlib
import inspect
import os
import signal
import sys
import tempfile
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tinyo.v1.container_pb2 import ExitStatus
from tinyo_runtime.spawnclient import Process, SpawnClient
from tinyo_runtime.spawner import protocol, syscalls

APPLETS = ("sh", "cat", "id", "mount", "echo", "true", "ps", "sleep", "ls", "grep", "readlink", "hostname")
#: The host's Python, and where it finds all that it needs.
PYTHON = os.path.realpath(sys.executable)
PYTHON_NEEDS = [folder for folder in (sys.base_prefix, "/usr", "/lib", "/lib64") if os.path.isdir(folder)]


def Exit(code: int, signal: int) -> ExitStatus:
    return ExitStatus(code=code, signal=signal)


@pytest.fixture(scope="module")
def netns() -> Iterator[int]:
    """A network namespace that nobody else is in."""
    found: list[int] = []

    def make() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    yield found[0]
    os.close(found[0])


class Box:
    """One spawner, and a root file system for what it starts."""

    def __init__(self, folder: Path, netns: int) -> None:
        self.folder, self.netns = folder, netns
        for name in ("layers/base/bin", "layers/base/etc", "containers/c/upper", "containers/c/work", "root"):
            (folder / name).mkdir(parents=True)
        base = folder / "layers/base"
        (base / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (base / "bin/busybox").chmod(0o755)
        for applet in APPLETS:
            (base / "bin" / applet).symlink_to("busybox")
        (base / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n")
        (base / "etc/group").write_text("wheel:x:10:root,bob\nstaff:x:50:\n")
        self.client = SpawnClient(folder / "spawner.sock", folder / "root", ready=True)

    def plan(self, id: str, *argv: str, **more: Any) -> protocol.Message:
        plan = {
            "id": id,
            "argv": list(argv),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": "",
            "cgroups": [],
            "hostname": "box",
            "netns": 0,
            "layers_dir": str(self.folder / "layers"),
            "layers": ["base"],
            "upper": "../containers/c/upper",
            "work": "../containers/c/work",
            "mounts": [],
        }
        return plan | more

    def joining(self, id: str, *argv: str) -> protocol.Message:
        """A plan for a program in a container, whose pidfd is passed with it."""
        container = {"cgroups": [], "container": 0}
        return {"id": id, "argv": list(argv), "env": ["PATH=/bin"], "cwd": "/", "user": "", **container}

    async def start(self, id: str, *argv: str, **more: Any) -> Process:
        return await self.begin(self.plan(id, *argv, **more), [self.netns], keep=True)

    async def begin(self, plan: protocol.Message, fds: list[int], *, keep: bool) -> Process:
        """Starts what a plan says, in which `seccomp` may be the program itself."""
        with contextlib.ExitStack() as opened:
            if isinstance(program := plan.get("seccomp"), bytes):
                file = opened.enter_context(tempfile.TemporaryFile(buffering=0))
                file.write(program)
                plan, fds = plan | {"seccomp": len(fds)}, [*fds, file.fileno()]
            return await self.client.start(plan, fds, keep=keep)

    async def run(self, script: str, **more: Any) -> tuple[ExitStatus, str]:
        """Exit and output (both streams) of a shell script in a container of its own."""
        process = await self.start("run", "sh", "-c", f"exec 2>&1; {script}", **more)
        exit = await asyncio.wait_for(process.exited, 20)
        os.set_blocking(process.stdout, False)
        output = os.read(process.stdout, 1 << 16).decode()
        self.client.forget("run")
        return exit, output

    async def run_python(
        self, id: str, inside: Callable[..., None], *arguments: str, program: str = PYTHON, **more: Any
    ) -> Process:
        """Starts a container with the host's Python in it, which runs a function of the test: for what busybox
        does not do. The function imports what it needs, and its arguments are text."""
        with contextlib.ExitStack() as opened:
            fds, mounts = [self.netns], []
            for folder in dict.fromkeys(PYTHON_NEEDS):
                fd = syscalls.open_tree(syscalls.AT_FDCWD, folder)
                opened.callback(os.close, fd)
                syscalls.make_private(fd, read_only=True)
                mounts.append((folder, len(fds), True))
                fds.append(fd)
            plan = self.plan(id, *python(inside, *arguments, program=program), mounts=mounts, **more)
            return await self.begin(plan, fds, keep=True)

    async def join(self, container: Process, id: str, *argv: str, **more: Any) -> Process:
        """Starts a further process in a container."""
        return await self.begin(self.joining(id, *argv) | more, [container.pidfd], keep=False)

    async def end(self, process: Process) -> None:
        """Ends a process, and forgets it."""
        process.kill(signal.SIGKILL)
        await asyncio.wait_for(process.exited, 20)
        self.client.forget(process.id)

    @property
    def spawner_pid(self) -> int:
        assert self.client.child
        return self.client.child.pid

    def children(self) -> list[int]:
        """Process ids of the spawner's children; one of them may be ready for the next container."""
        return [
            *map(int, Path(f"/proc/{self.spawner_pid}/task/{self.spawner_pid}/children").read_text().split())
        ]


#: What the fixture `box` is: it runs a coroutine with a box.
InBox = Callable[[Callable[[Box], Awaitable[None]]], None]


@pytest.fixture
def box(tmp_path: Path, netns: int) -> Iterator[InBox]:
    """Runs a coroutine with a box, and afterwards ends the box's spawner and what it started."""
    made = Box(tmp_path, netns)

    async def whole(test: Callable[[Box], Awaitable[None]]) -> None:
        await made.client.open()
        try:
            await test(made)
        finally:
            asyncio.get_running_loop().remove_reader(made.client.sock)  # it starts no other
            for process in made.client.processes.values():
                process.kill(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(made.spawner_pid, signal.SIGKILL)

    mounts = Path("/proc/self/mountinfo").read_text()
    yield lambda test: asyncio.run(whole(test))
    assert Path("/proc/self/mountinfo").read_text() == mounts


def state(pid: int) -> str:
    """What a process does (proc_pid_stat(5)): "S" when it waits, "Z" when it has ended and nobody has waited."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def gone(check: Callable[[], bool]) -> None:
    """Waits (bounded) for what the spawner does after a message that has no answer."""
    for _ in range(2000):
        if check():
            return
        await asyncio.sleep(0.01)
    assert check()


def python(inside: Callable[..., None], *arguments: str, program: str = PYTHON) -> list[str]:
    """The command that runs a function of a test in another process."""
    script = f"{textwrap.dedent(inspect.getsource(inside))}\nimport sys; {inside.__name__}(*sys.argv[1:])"
    return [program, "-I", "-S", "-c", script, *arguments]


async def line(fd: int) -> str:
    """The next line that a process writes into a pipe, without its end; bounded. What follows it is lost."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    text = b""
    while not text.endswith(b"\n"):
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        try:
            await asyncio.wait_for(readable.wait(), 20)
        finally:
            loop.remove_reader(fd)
        more = os.read(fd, 1 << 16)
        assert more, f"the process ended and said {text!r}"
        text += more
    return text.decode().rstrip("\n")
