"""What the reconciler does while the runtime or the disk cannot be had: it waits, and tries again."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc

from tinyo_node import collecting

if TYPE_CHECKING:
    from tinyo_node.cluster import Key
    from tinyo_node.reconcile import Reconciler

log = logging.getLogger(__name__)

#: Containers that are worked on at the same time.
SLOTS = asyncio.Semaphore(32)
#: Seconds between attempts, at first and at most.
SHORT, LONG = 0.05, 5.0

#: Seconds to wait after the next failure, of names whose last step failed.
delays: "dict[Key, float]" = {}


@contextlib.asynccontextmanager
async def with_runtime(work: "Reconciler") -> AsyncIterator[None]:
    """A connection to the runtime; whatever ends it, the next one follows soon."""
    try:
        async with collecting.meanwhile(work):
            yield
    except grpc.aio.AioRpcError as error:
        log.warning("the runtime's stream ended: %s %s", error.code().name, error.details())
    work.connected.clear()
    await asyncio.sleep(SHORT)


@contextlib.asynccontextmanager
async def with_step(work: "Reconciler", key: "Key") -> AsyncIterator[None]:
    """Some steps at a time; one that failed for want of the runtime or of the disk is taken again."""
    try:
        async with SLOTS:
            yield
        delays.pop(key, None)
    except (grpc.aio.AioRpcError, OSError) as error:
        log.warning("%s/%s: %s; trying again", *key, error)
        work.again.add(key)
        delay = delays.get(key, SHORT)
        delays[key] = min(2 * delay, LONG)
        await asyncio.sleep(delay)
