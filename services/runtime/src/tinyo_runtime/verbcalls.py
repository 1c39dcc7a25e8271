"""RuntimeService: signals, pauses, names, and who is in a container."""

from collections.abc import Awaitable, Iterable

from tinyo.runtime.v1 import runtime_pb2 as pb

from tinyo_runtime import processes, verbs
from tinyo_runtime.containers import Containers
from tinyo_runtime.errors import Context


class VerbCalls:
    """A part of RuntimeService; see calls.py."""

    containers: Containers

    async def each(self, calls: Iterable[tuple[str, Awaitable[None]]]) -> list[pb.ContainerResult]:
        raise NotImplementedError

    async def Kill(self, request: pb.KillRequest, context: Context) -> pb.KillResponse:
        unheard = list[str]()
        calls = [(id, verbs.kill(self.containers, id, request.signal, unheard)) for id in request.ids]
        return pb.KillResponse(results=await self.each(calls), unheard=unheard)

    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:
        calls = [(id, verbs.pause(self.containers, id)) for id in request.ids]
        return pb.PauseResponse(results=await self.each(calls))

    async def Unpause(self, request: pb.UnpauseRequest, context: Context) -> pb.UnpauseResponse:
        calls = [(id, verbs.unpause(self.containers, id)) for id in request.ids]
        return pb.UnpauseResponse(results=await self.each(calls))

    async def Rename(self, request: pb.RenameRequest, context: Context) -> pb.RenameResponse:
        (result,) = await self.each([(request.id, verbs.rename(self.containers, request.id, request.name))])
        return pb.RenameResponse(result=result)

    async def Top(self, request: pb.TopRequest, context: Context) -> pb.TopResponse:
        return pb.TopResponse(processes=await processes.read(self.containers, request.id))
