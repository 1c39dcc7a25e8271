"""What goes wrong on the way up: told once, and not tried again until somebody asks."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.error_pb2 import Error
from tinyo.v1.event_pb2 import EVENT_REASON_FAILED, Event

from tinyo_node import collecting, pulls
from tinyo_node.errors import from_runtime, is_transport

if TYPE_CHECKING:
    from tinyo_node.reconcile import Reconciler


@contextlib.asynccontextmanager
async def of_pull(work: "Reconciler", container: v1.Container) -> AsyncIterator[None]:
    """What a registry answers is told; that the runtime is not there is raised. What nobody waits for is nothing."""
    try:
        yield
    except pulls.Unwanted:
        return
    except grpc.aio.AioRpcError as error:
        if is_transport(error):
            raise
        if await collecting.helps(work, container, error):
            work.touch((container.cluster, container.spec.name))
        else:
            await tell(work, container, from_runtime(error), "image")


async def of_start(work: "Reconciler", container: v1.Container, result: rt.ContainerResult) -> bool:
    """Whether a container did not start: that is told, unless its image was removed since and can be had again."""
    if not result.HasField("error"):
        return False
    if result.error.reason == "IMAGE_NOT_FOUND":
        async with of_pull(work, container), pulls.while_wanted(work, container):
            await pull_again(work, container)
            work.touch((container.cluster, container.spec.name))
    else:
        await tell(work, container, result.error)
    return True


async def pull_again(work: "Reconciler", container: v1.Container) -> None:
    """Fetches the very image that the tag stood for at first."""
    repository = container.spec.image.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    reference = f"{repository}@{container.image_digest}"
    async for _ in work.runtime.PullImage(rt.PullImageRequest(reference=reference)):
        pass


async def tell(work: "Reconciler", container: v1.Container, error: Error, field: str = "") -> None:
    """Keeps an error with the container that it is about."""
    container.status.phase = v1.PHASE_FAILED
    error.field = error.field or field
    container.status.error.CopyFrom(error)
    event = Event(reason=EVENT_REASON_FAILED, message=error.message, error=error)
    await work.state.write([container], event)


def check(answer: rt.StopResponse | rt.DeleteResponse) -> None:
    """OSError when something could not be ended or taken away; it is tried again."""
    for result in answer.results:
        if result.HasField("error"):
            raise OSError(0, f"{result.id} cannot be ended: {result.error.message}")
