"""Running a program in a running container: its pipes on one side, a bidirectional stream on the other."""

import asyncio
import contextlib
import errno
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import grpc
from tinyo.runtime.v1.runtime_pb2 import ExecRequest, ExecStart
from tinyo.v1.container_pb2 import ExitStatus
from tinyo.v1.stream_pb2 import ExecOutput

from tinyo_runtime import failures, options, pausing, terminals
from tinyo_runtime.containers import Containers, process_plan
from tinyo_runtime.errors import Context, TinyoError
from tinyo_runtime.spawnclient import Process

CHUNK = 32 * 1024
#: Seconds for a client that was told the exit to say that it sends no more: whoever sends into a call that has ended may
#: take that for an error.
PATIENCE = 1
_numbers = itertools.count(1)
#: Programs that were left to themselves.
_left = set[asyncio.Future[None]]()


async def run(
    containers: Containers, requests: AsyncIterator[ExecRequest], context: Context
) -> AsyncGenerator[ExecOutput, None]:
    """Output as it comes, then the exit. A client that goes away takes the program with it. That it has started is told
    by the initial metadata."""
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("request") != "start":
        raise TinyoError(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", "the first message must say what to run"
        )
    process = await started(containers, first.start)
    output: asyncio.Queue[ExecOutput | None] = asyncio.Queue(maxsize=8)  # a slow client slows the program
    ended = process.exited if first.start.exec.tty else None
    tasks = [
        asyncio.ensure_future(drain(process.stdout, lambda data: ExecOutput(stdout=data), output, ended)),
        asyncio.ensure_future(drain(process.stderr, lambda data: ExecOutput(stderr=data), output)),
        asyncio.ensure_future(feed(process, requests, output)),
    ]
    left = False
    try:
        await context.send_initial_metadata(())
        for _ in ("stdout", "stderr"):
            while data := await output.get():
                if left := not data.WhichOneof("output"):
                    return
                yield data
        yield ExecOutput(exit=await asyncio.shield(process.exited))
        await asyncio.wait([tasks[-1]], timeout=PATIENCE)
    finally:
        # Shielded: a client that has its answer may be gone before we are through.
        ending = asyncio.ensure_future(end(containers, process, tasks, output if left else None))
        if left:
            _left.add(ending)
            ending.add_done_callback(_left.discard)
        else:
            await asyncio.shield(ending)


async def end(
    containers: Containers,
    process: Process,
    tasks: Sequence[asyncio.Future[None]],
    output: asyncio.Queue[ExecOutput | None] | None = None,
) -> None:
    """Whatever still goes on ends, and then the descriptors are closed; with `output` not before the program has ended,
    to which nobody listens any more."""
    reading = asyncio.ensure_future(lose(output)) if output else None
    if reading:
        await asyncio.shield(process.exited)
        reading.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    containers.spawner.keeper.end(process)


async def lose(output: asyncio.Queue[ExecOutput | None]) -> None:
    """Takes what comes, so that the program does not wait for us."""
    while True:
        await output.get()


async def started(containers: Containers, request: ExecStart) -> Process:
    """Starts the program; one that nobody waits for any more when it has started ends."""
    starting = asyncio.ensure_future(start(containers, request))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(lambda _: give_up(containers, starting))
        raise


def give_up(containers: Containers, starting: asyncio.Future[Process]) -> None:
    """Ends what was started, if it was."""
    if not starting.cancelled() and not starting.exception():
        containers.spawner.keeper.end(starting.result())


async def start(containers: Containers, request: ExecStart) -> Process:
    """Starts the program with the container's environment, user and cgroup."""
    container = containers.get(request.id)
    if not container.process:
        raise failures.not_running(container.config.spec.name)
    if container.state.paused:
        raise failures.paused(container.config.spec.name)
    spec = type(container.config.spec)()
    spec.CopyFrom(container.config.spec)
    spec.env.update(request.exec.env)
    spec.workdir = request.exec.workdir or spec.workdir
    spec.user = request.exec.user or spec.user
    image = containers.images.get(container.config.image_digest)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(failures.explained(request.exec.command[0], spec))
        try:
            joined = stack.enter_context(containers.cgroups.opened(request.id))
        except FileNotFoundError:  # it is being taken apart
            raise failures.not_running(container.config.spec.name) from None
        fds = [container.process.pidfd, *joined]
        plan = process_plan(spec, image) | {
            "id": f"{request.id}.{next(_numbers)}.{os.getpid()}",
            "argv": list(request.exec.command),
            "container": 0,
            "cgroups": [fds.index(fd) for fd in joined],
        }
        console = terminals.ask(request.exec, plan, fds, stack)
        await stack.enter_async_context(options.completed(containers, container, plan, fds, stack, spec))
        process = await containers.spawner.start(plan, fds, keep=False)
        if container.state.paused:  # since then: this one stands still as well
            await pausing.hold(containers.cgroups, request.id, container.config.spec.name)
        return terminals.take(containers.spawner, process, console)


async def drain(
    fd: int,
    wrap: Callable[[bytes], ExecOutput],
    output: asyncio.Queue[ExecOutput | None],
    ended: asyncio.Future[ExitStatus] | None = None,
) -> None:
    """Reads a pipe, or the master of a terminal, to its end into the queue. With `ended` there is no more once that is
    done and all was read: whoever still has the terminal then cannot write to it (credentials(7))."""
    os.set_blocking(fd, False)
    while True:
        over = ended is not None and ended.done()
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            if not over:
                await ready(fd, asyncio.get_running_loop().add_reader, ended)
                continue
            data = b""
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # nobody has the terminal any more
        await output.put(wrap(data) if data else None)
        if not data:
            return


async def feed(
    process: Process, requests: AsyncIterator[ExecRequest], output: asyncio.Queue[ExecOutput | None]
) -> None:
    """Passes input and signals on, until the client has no more or leaves, which is an empty output. A program that no longer
    reads its input is no error."""
    os.set_blocking(process.stdin, False)
    async for request in requests:
        match request.input.WhichOneof("input"):
            case "stdin":
                await write(process, request.input.stdin)
            case "signal":
                process.kill(request.input.signal)
            case "resize":
                terminals.resize(process, request.input.resize)
            case "end_of_input":
                await write(process, terminals.end_of_file(process))
                close_input(process)
            case "leave":
                await output.put(ExecOutput())
                return
    close_input(process)


def close_input(process: Process) -> None:
    """End of input."""
    if process.stdin >= 0:
        os.close(process.stdin)
        process.stdin = -1


async def write(process: Process, data: bytes) -> None:
    """Writes all of it, waiting while the pipe is full."""
    while data and process.stdin >= 0 and not process.exited.done():
        try:
            data = data[os.write(process.stdin, data) :]
        except BlockingIOError:
            await ready(process.stdin, asyncio.get_running_loop().add_writer, process.exited)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            close_input(process)


async def ready(fd: int, add: Callable[..., None], ended: asyncio.Future[ExitStatus] | None = None) -> None:
    """Waits until a descriptor can be read (`add_reader`) or written (`add_writer`), or until `ended` is done."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    add(fd, lambda: None if future.done() else future.set_result(None))
    try:
        await asyncio.wait({future, ended or future}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        (loop.remove_reader if add == loop.add_reader else loop.remove_writer)(fd)
