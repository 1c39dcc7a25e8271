"""RuntimeService: the calls that a container comes and goes without."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable

from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2_grpc
from tinyo.v1.version_pb2 import Version

from tinyo_runtime import attaching, execs, inspecting, logreader, stats, updating
from tinyo_runtime.archivecalls import ArchiveCalls
from tinyo_runtime.containers import Containers
from tinyo_runtime.copycalls import CopyCalls
from tinyo_runtime.doctorcalls import DoctorCalls
from tinyo_runtime.errors import Context
from tinyo_runtime.imagecalls import ImageCalls
from tinyo_runtime.images import ImageStore
from tinyo_runtime.pushcalls import PushCalls
from tinyo_runtime.verbcalls import VerbCalls
from tinyo_runtime.volumecalls import VolumeCalls

VERSION = Version(program="0.1.0", contract="v1.0", features=[])


class Calls(
    ImageCalls,
    ArchiveCalls,
    PushCalls,
    VolumeCalls,
    CopyCalls,
    VerbCalls,
    DoctorCalls,
    runtime_pb2_grpc.RuntimeServiceServicer,
):
    """Each call in the words of the contract; the work is done by the modules beside this one."""

    containers: Containers
    images: ImageStore

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        return pb.GetVersionResponse(version=VERSION)

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        registry = await self.images.login(request.registry, request.username, request.password)
        return pb.LoginResponse(registry=registry)

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        registry, was = self.images.logout(request.registry)
        return pb.LogoutResponse(registry=registry, was_logged_in=was)

    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartResponse:
        calls = [(id, self.containers.start(id)) for id in request.ids]
        return pb.StartResponse(results=await self.each(calls))

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:
        calls = [(id, updating.update(self.containers, id, request.resources)) for id in request.ids]
        return pb.UpdateResponse(results=await self.each(calls))

    async def Stats(self, request: pb.StatsRequest, context: Context) -> AsyncIterator[pb.StatsResponse]:
        samples = stats.read(self.containers, frozenset(request.ids), request.interval_ms)
        async for sample in samples:
            yield pb.StatsResponse(stats=sample)

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectResponse:
        return pb.InspectResponse(inspection=await inspecting.inspect(self.containers, request.id))

    async def each(self, calls: Iterable[tuple[str, Awaitable[None]]]) -> list[pb.ContainerResult]:
        raise NotImplementedError

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        container = self.containers.get(request.id)
        tail = request.tail if request.HasField("tail") else None
        since = request.since if request.HasField("since") else None
        until = request.until if request.HasField("until") else None
        entries = logreader.read(container, tail=tail, follow=request.follow, since=since, until=until)
        async with contextlib.aclosing(entries):
            async for batch in entries:
                yield pb.LogsResponse(entries=batch)

    async def Exec(
        self, requests: AsyncIterator[pb.ExecRequest], context: Context
    ) -> AsyncIterator[pb.ExecResponse]:
        async with contextlib.aclosing(execs.run(self.containers, requests, context)) as outputs:
            async for output in outputs:
                yield pb.ExecResponse(output=output)

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        async with contextlib.aclosing(attaching.run(self.containers, requests, context)) as outputs:
            async for output in outputs:
                yield pb.AttachResponse(output=output)
