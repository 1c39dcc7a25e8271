"""A container becomes an image: it stands still while its files are read, and its image stays until the new one is."""

import contextlib
import re
from collections.abc import AsyncIterator

from tinyo.runtime.v1.runtime_pb2 import CommitContainerRequest

from tinyo_runtime import failures, pausing
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.images.catalog import Held
from tinyo_runtime.images.commit import Draft


async def commit(containers: Containers, request: CommitContainerRequest) -> tuple[Held, str, list[str]]:
    """The image, its complete reference, and what of the container is not in it. Raises TinyoError and OSError."""
    container = containers.all.get(request.id)
    upper = containers.folder / "containers" / request.id / "upper"
    if not re.fullmatch("[0-9A-Za-z]+", request.id) or not (container or upper.is_dir()):
        raise failures.not_found(request.id)
    name = container.config.spec.name if container else request.id
    base = container.config.image_digest if container else request.image_digest
    async with Draft(containers.images, name, base, request.reference, request.options) as draft:
        async with _still(containers, container, pause=not request.options.no_pause):
            notes = await draft.pack(upper)
        return *await draft.image(), notes


@contextlib.asynccontextmanager
async def _still(containers: Containers, container: Container | None, *, pause: bool) -> AsyncIterator[None]:
    """Nobody starts, stops or deletes the container; nothing in it runs. One that was known before the last boot
    runs only when it is created again."""
    async with contextlib.AsyncExitStack() as stack:
        if container:
            name, id = container.config.spec.name, container.config.id
            await stack.enter_async_context(container.lock)
            if id not in containers.all:
                raise failures.not_found(name)
            if not container.state.HasField("started_at"):
                raise failures.never_started(name)
            if container.process and pause and not container.state.paused:
                await stack.enter_async_context(pausing.paused(containers.cgroups, id, name))
        yield
