"""What a client is told while it waits: events, and how pulls go. And Get and Watch, for who only looks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.event_pb2 import Event

from tinyo_node import pulls
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find

if TYPE_CHECKING:
    from tinyo_node.cluster import State


async def apply(
    state: "State", containers: Collection[v1.Container], after: int, settled: "asyncio.Task[None]"
) -> AsyncIterator[pb.ApplyResponse]:
    """Events and pulls of these containers."""
    with pulls.followed(state, containers) as progress:
        async for events in follow(state, containers, after, settled):
            while progress:
                yield pb.ApplyResponse(progress=progress.popitem()[1])
            for event in events:
                yield pb.ApplyResponse(event=event)


async def remove(
    state: "State", containers: Collection[v1.Container], after: int, settled: "asyncio.Task[None]"
) -> AsyncIterator[pb.RemoveResponse]:
    """Events of these containers."""
    async for events in follow(state, containers, after, settled):
        for event in events:
            yield pb.RemoveResponse(event=event)


async def follow(
    state: "State", containers: Collection[v1.Container], after: int, settled: "asyncio.Task[None]"
) -> AsyncGenerator[list[Event], None]:
    """Events under the names of these containers, until all is settled and everything up to then was told."""
    names = {(container.cluster, container.spec.name) for container in containers}
    settled.add_done_callback(lambda _: state.log.wake())
    last: int | None = None
    async for events in state.log.watch(after):
        yield [event for event in events if (event.cluster, event.name) in names]
        after = events[-1].sequence if events else after
        if last is None and settled.done():
            last = state.log.newest
        if last is not None and after >= last:
            return


class Following:
    """A part of NodeService; see server.py."""

    state: "State"

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        container = find(self.state, request.cluster, request.name)
        return pb.GetResponse(container=container, sequence=self.state.log.newest)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        names = set(request.names)
        async for events in self.state.log.watch(request.after_sequence):
            for event in events:
                if event.cluster in ("", request.cluster) and (not names or event.name in names):
                    yield pb.WatchResponse(event=event)
            if not (events or request.follow):
                return
