"""Room on the disk: the runtime is asked to make some when it becomes scarce, and told what containers need.

It knows how full the disk is, and what its settings allow to go; only the node knows all containers of all clusters.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.event_pb2 import EVENT_REASON_IMAGE_REMOVED, Event

from tinyo_node.errors import from_runtime

if TYPE_CHECKING:
    from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceAsyncStub  # generated for type checkers alone

    from tinyo_node.cluster import State
    from tinyo_node.reconcile import Reconciler

log = logging.getLogger(__name__)

#: Seconds between two looks; after a pull the next one follows at once.
PERIOD = 300.0
#: Seconds for which room that was made counts as made for everybody who was refused some.
RECENT = 5.0

soon = asyncio.Event()
#: When something went last, by the monotonic clock.
freed_at = -RECENT
#: Ids of containers whose pull is tried once more.
tried: set[str] = set()


def images_in_use(state: "State") -> set[str]:
    """Of the containers of all clusters, stopped ones too: after a reboot the runtime does not know them."""
    return {one.image_digest or one.spec.image for one in state.containers.values()}


@contextlib.asynccontextmanager
async def meanwhile(work: "Reconciler") -> AsyncIterator[None]:
    """As long as there is a runtime, it is asked now and then."""
    task = asyncio.create_task(_ask(work))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _ask(work: "Reconciler") -> None:
    await work.connected.wait()
    while True:
        try:
            await collect(work.state, work.runtime)
        except (grpc.aio.AioRpcError, OSError) as error:
            log.warning("no room could be made on the disk: %s", error)
        soon.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD):
                await soon.wait()


async def collect(state: "State", runtime: "RuntimeServiceAsyncStub", *, now: bool = False) -> bool:
    """Whether anything went, now or a moment ago. What went is told to those who watch events."""
    global freed_at
    answer = await runtime.CollectImages(rt.CollectImagesRequest(in_use=images_in_use(state), now=now))
    changes = dict[str, bytes | None]()
    for image in answer.removed:
        name = ", ".join(image.references) or image.digest
        said = f"{name}: nobody uses it, and the disk is {answer.used_percent} % full"
        state.log.note(changes, v1.Container(), (Event(reason=EVENT_REASON_IMAGE_REMOVED, message=said),))
        log.warning("image removed: %s", said)
    if changes:
        await state.table.write(changes.items())
        state.log.wake()
    if answer.removed or answer.freed_bytes:
        freed_at = time.monotonic()
    return time.monotonic() - freed_at < RECENT


async def helps(work: "Reconciler", container: v1.Container, error: grpc.aio.AioRpcError) -> bool:
    """Whether a pull failed for want of room, which is there now: it is tried once more."""
    if from_runtime(error).reason != "DISK_FULL" or container.id in tried:
        tried.discard(container.id)
        return False
    tried.add(container.id)
    return await collect(work.state, work.runtime, now=True)


async def pulled(
    state: "State", runtime: "RuntimeServiceAsyncStub", request: rt.PullImageRequest
) -> AsyncIterator[rt.PullImageResponse]:
    """A pull for somebody who waits, once more when it was refused for want of room that can be made."""
    try:
        async for answer in runtime.PullImage(request):
            yield answer
    except grpc.aio.AioRpcError as error:
        if from_runtime(error).reason != "DISK_FULL" or not await collect(state, runtime, now=True):
            raise
        async for answer in runtime.PullImage(request):
            yield answer
    soon.set()
