"""One pull for all who want the same image at the same time, and who is told how it goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.event_pb2 import EVENT_REASON_PULLING, Event
from tinyo.v1.image_pb2 import LAYER_STATE_EXISTS, PullProgress

from tinyo_node import collecting

if TYPE_CHECKING:
    from tinyo_node.cluster import State
    from tinyo_node.reconcile import Reconciler


@dataclass
class Pull:
    """A pull that is under way."""

    #: The containers that wait for it.
    wanted_by: list[v1.Container]
    #: What it comes to; whatever the pull raises is raised for all.
    digest: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    #: Whether something really has to be fetched.
    fetches: bool = False
    #: How far it is, as soon as that is known.
    progress: PullProgress | None = None


#: By reference, as specs have it.
running: dict[str, Pull] = {}
#: How far images have come, as long as that has not been told: for everybody who follows an Apply, with the images
#: that it is about. Who reads slowly is told what is newest.
followers: list[tuple[set[str], dict[str, PullProgress]]] = []


class Unwanted(Exception):
    """Nobody wants that container any more, or it is another by now: its image need not be waited for."""


@contextlib.asynccontextmanager
async def shared(work: "Reconciler", container: v1.Container) -> AsyncIterator[None]:
    """The first who comes pulls in here; the others wait, and find the digest in their container. Unwanted when that is
    so; was it the first, the next one pulls, and the runtime goes on where it was."""
    image = container.spec.image
    while pull := running.get(image):
        if await joined(work, container, pull):
            yield
            return
    pull = running[image] = Pull([container])
    try:
        async with while_wanted(work, container):
            yield
        ended(pull, OSError(0, f"the pull of {image} ended without an image"))
    except Exception as error:
        ended(pull, error)
        raise
    finally:
        if running.get(image) is pull:
            del running[image]


async def joined(work: "Reconciler", container: v1.Container, pull: Pull) -> bool:
    """Waits for a pull of somebody else; False when that one is not wanted any more. Unwanted when we are not."""
    pull.wanted_by.append(container)
    try:
        async with while_wanted(work, container):
            if pull.fetches:
                await tell(work, container)
            await asyncio.wait([pull.digest])
    finally:
        pull.wanted_by.remove(container)
    if isinstance(pull.digest.exception(), Unwanted):
        return False
    container.image_digest = pull.digest.result()
    return True


@contextlib.asynccontextmanager
async def while_wanted(work: "Reconciler", container: v1.Container) -> AsyncIterator[None]:
    """What is done inside ends, with Unwanted, when nobody wants this container any more."""
    watching = asyncio.create_task(unwanted(work, container))
    try:
        async with asyncio.timeout(None) as limit:

            def leave(_: object) -> None:
                with contextlib.suppress(RuntimeError):  # it is done inside already
                    limit.reschedule(0)

            watching.add_done_callback(leave)
            yield
    except TimeoutError:
        if limit.expired():
            raise Unwanted from None
        raise
    finally:
        watching.cancel()


async def unwanted(work: "Reconciler", container: v1.Container) -> None:
    """Returns when it is durable that there is none of this id any more."""
    key = (container.cluster, container.spec.name)
    while (current := work.state.containers.get(key)) and current.id == container.id:
        await work.state.log.news.wait()


def ended(pull: Pull, error: Exception) -> None:
    """Tells those who wait, unless they know the digest."""
    if not pull.digest.done():
        pull.digest.set_exception(error)
        pull.digest.exception()  # perhaps nobody waits


async def progressed(work: "Reconciler", container: v1.Container, answer: rt.PullImageResponse) -> None:
    """Tells everybody how far an image has come: that it is fetched, how much of it, that it is there."""
    image = container.spec.image
    pull = running[image]
    if answer.HasField("image"):
        pull.digest.set_result(answer.image.digest)
        del running[image]
        collecting.soon.set()
        return
    pull.progress = answer.progress
    for images, progress in followers:
        if image in images:
            progress[image] = answer.progress
    work.state.log.wake()
    if not pull.fetches and any(layer.state != LAYER_STATE_EXISTS for layer in answer.progress.layers):
        pull.fetches = True
        await asyncio.gather(*(tell(work, waiting) for waiting in pull.wanted_by))


async def tell(work: "Reconciler", container: v1.Container) -> None:
    """The container's image comes from a registry."""
    container.status.phase = v1.PHASE_PULLING
    await work.state.write([container], Event(reason=EVENT_REASON_PULLING, message=container.spec.image))


@contextlib.contextmanager
def followed(state: "State", containers: Collection[v1.Container]) -> Iterator[dict[str, PullProgress]]:
    """How far images of these containers have come, now and later; what is taken out of it has been told."""
    images = {container.spec.image for container in containers}
    known = {image: pull.progress for image, pull in running.items() if image in images and pull.progress}
    followers.append(follower := (images, known))
    try:
        yield known
    finally:
        followers.remove(follower)
