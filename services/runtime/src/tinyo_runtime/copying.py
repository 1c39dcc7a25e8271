"""Files into containers and out of them, by a confined process that sees nothing but the container's root."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import grpc

from tinyo_runtime import failures, volumes
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.errors import TinyoError, printable
from tinyo_runtime.images import child, verify
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.spawner import userns

log = logging.getLogger(__name__)

TRANSFER = [sys.executable, "-I", str(Path(__file__).with_name("transfer.py"))]
CHUNK = 256 << 10


async def copy_out(
    containers: Containers, id: str, path: str, *, follow: bool
) -> AsyncGenerator[bytes, None]:
    """A tar, as it comes. Raises PATH_NOT_FOUND and COPY_REFUSED."""
    container = containers.get(id)
    async with _process(containers, container, "out", path, flag=follow) as process:
        assert process.stdout
        while data := await process.stdout.read(CHUNK):
            yield data
        await _judged(process, path)


async def copy_in(
    containers: Containers, id: str, path: str, data: AsyncIterator[bytes], *, archive: bool
) -> None:
    """Everything in a tar. Raises PATH_NOT_FOUND and COPY_REFUSED."""
    container = containers.get(id)
    async with _process(containers, container, "in", path, flag=archive) as process:
        assert process.stdin
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it says why
            async for piece in data:
                process.stdin.write(piece)
                await process.stdin.drain()
        process.stdin.close()
        await _judged(process, path)


@contextlib.asynccontextmanager
async def _process(
    containers: Containers, container: Container, direction: str, path: str, *, flag: bool
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The confined process; it has ended afterwards. A container that does not run is not started meanwhile."""
    if not path.startswith("/") or "\0" in path or len(path) > 4096:
        message = f"{printable(path)!r} is no absolute path in a container"
        raise TinyoError(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, {"path": printable(path)}, "path"
        )
    if userns.recorded(container.folder / "upper"):
        name = container.config.spec.name
        message = f"{name!r} has a user namespace, and owners are not translated: `tinyo exec {name} -- tar` can do it"
        raise TinyoError(failures.FAILED, "COPY_REFUSED", message, {"name": name})
    async with contextlib.AsyncExitStack() as stack:
        root, mounts, fds = "", list[str](), list[int]()
        if container.process:
            fds.append(_root(container))
            stack.callback(os.close, fds[0])
            root = str(fds[0])
        else:
            await stack.enter_async_context(container.lock)
            if container.process:
                raise failures.started_meanwhile(container.config.spec.name)
            root, mounts = _overlay(containers, container), _mounts(containers, container)
        command = [*TRANSFER, direction, root, path, str(int(flag)), *mounts]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE if direction == "in" else DEVNULL,
            stdout=DEVNULL if direction == "in" else PIPE,
            stderr=PIPE,
            pass_fds=fds,
            env={},
            cwd=containers.folder / "layers",
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                child.silence(process)
                await process.wait()


def _root(container: Container) -> int:
    """A descriptor of the root of a container that runs: of that one, and not of one that got its number."""
    assert container.process
    try:
        root = os.open(f"/proc/{container.process.pid}/root", os.O_PATH | os.O_CLOEXEC)
        signal.pidfd_send_signal(container.process.pidfd, 0)
    except (FileNotFoundError, ProcessLookupError):
        raise failures.not_running(container.config.spec.name) from None
    return root


def _overlay(containers: Containers, container: Container) -> str:
    """The folder where it is mounted, which nobody else sees; whether it is read-only; the options of spawner/enter.py."""
    image, own = containers.images.get(container.config.image_digest), f"../containers/{container.config.id}"
    options = f"lowerdir={':'.join(image.layers)},upperdir={own}/upper,workdir={own}/work"
    read_only = int(container.config.spec.read_only)  # MS_RDONLY is 1
    return f"{containers.run / 'root'};{read_only};{options},redirect_dir=nofollow,metacopy=off,index=off"


def _mounts(containers: Containers, container: Container) -> list[str]:
    """The files and folders that are mounted in it when it runs, but for parts of them."""
    found = []
    for mount in container.config.spec.mounts:
        source = Path(mount.source)
        if mount.volume:
            source = volumes.folder(containers.folder, mount.volume) / "data"
        if not mount.sub_path and source.exists():
            found += [mount.target, str(source), str(int(mount.read_only))]
    return found


async def _judged(process: asyncio.subprocess.Process, path: str) -> None:
    """What the confined process says, which is believed only where it cannot do harm."""
    assert process.stderr
    said = await process.stderr.read(64 << 10)
    if not await process.wait():
        return
    try:
        verdict = verify.load(said)
        number, why = verdict.get("errno"), printable(str(verdict.get("message")))
    except Malformed:
        number, why = 0, f"the process that copies ended with {process.returncode}"
        log.error("%s: %s", why, printable(said.decode(errors="replace")))
    if number == errno.ENOENT:
        message = f"there is no {printable(path)} in the container"
        raise TinyoError(grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND", message, {"path": printable(path)})
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(number, os.strerror(number))
    message = f"{printable(path)} cannot be copied: {why}"
    raise TinyoError(failures.FAILED, "COPY_REFUSED", message, {"path": printable(path)})
