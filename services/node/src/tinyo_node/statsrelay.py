"""NodeService: what containers take of the machine, as the runtime says it."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.interceptors import Context
from tinyo_node.lookup import find_all
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class StatsRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def Stats(self, request: pb.StatsRequest, context: Context) -> AsyncIterator[pb.StatsResponse]:
        chosen = {container.id for container in find_all(self.state, request.cluster, request.names)}
        await self.reached()
        # All are asked for: one that is not in the runtime yet, or not any more, is no error.
        async for answer in self.runtime.Stats(rt.StatsRequest(interval_ms=request.interval_ms)):
            found = [one for one in answer.stats if one.cluster == request.cluster]
            if request.names:
                found = [one for one in found if one.id in chosen]
            yield pb.StatsResponse(stats=sorted(found, key=lambda one: one.name))
