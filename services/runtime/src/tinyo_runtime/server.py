"""tinyo-runtime: RuntimeService on a unix socket. The service's story is told in runtime.proto."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path

import grpc
from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2_grpc
from tinyo.v1.image_pb2 import Image

from tinyo_runtime import calls, errors, lastwords, pulls, recover, settings, standard
from tinyo_runtime.containers import Containers
from tinyo_runtime.errors import Context
from tinyo_runtime.images import ImageStore, registries
from tinyo_runtime.network import Network


class RuntimeService(calls.Calls, runtime_pb2_grpc.RuntimeServiceServicer):
    """The calls that a container needs to come and to go; all others stand in `calls`."""

    def __init__(self, containers: Containers, images: ImageStore) -> None:
        self.containers, self.images = containers, images

    async def PullImage(
        self, request: pb.PullImageRequest, context: Context
    ) -> AsyncIterator[pb.PullImageResponse]:
        reports = pulls.Reports(request)
        pull = asyncio.ensure_future(self.images.pull(request.reference, **reports.wanted))
        async for report in reports.until(pull):
            yield pb.PullImageResponse(progress=report)
        image = await pull
        yield pb.PullImageResponse(image=Image(digest=image.digest, **pulls.facts(image)))

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        create = self.containers.create
        calls = [(config.id, create(config, start=request.start)) for config in request.containers]
        return pb.CreateResponse(results=await self.each(calls))

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        calls = [(id, self.containers.stop(id, request.grace_ms / 1000)) for id in request.ids]
        return pb.StopResponse(results=await self.each(calls))

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        calls = [(id, self.containers.delete(id)) for id in request.ids]
        return pb.DeleteResponse(results=await self.each(calls))

    async def each(self, calls: Iterable[tuple[str, Awaitable[None]]]) -> list[pb.ContainerResult]:
        """All calls at once, by the id of the container; an error is part of that id's answer. Shielded: what
        was begun is finished, whether or not the caller still waits."""
        return await asyncio.shield(asyncio.gather(*(self._one(id, call) for id, call in calls)))

    async def _one(self, id: str, call: Awaitable[None]) -> pb.ContainerResult:
        result = pb.ContainerResult(id=id)
        with errors.told(result.error):
            await call
        if container := self.containers.all.get(id):
            result.state.CopyFrom(container.state)
        return result

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        states = [container.state for container in self.containers.all.values()]
        return pb.ListResponse(containers=states, sequence=self.containers.changes.sequence)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        async for change in self.containers.changes.watch(request.after_sequence):
            yield change


async def serve(config: settings.Settings) -> None:
    """Runs until SIGTERM or SIGINT. Containers are not touched by either."""
    for folder in (config.run, config.state):
        Path(folder).mkdir(0o700, parents=True, exist_ok=True)
    images = ImageStore(Path(config.state), insecure=frozenset(config.insecure_registries.split(",")) - {""})
    registries.configure(images, config)
    containers = Containers(config, images, Network(config))
    earlier = recover.Earlier(containers)
    await containers.spawner.open()
    await containers.network.open([*earlier.living()])
    earlier.resume()
    server = grpc.aio.server(interceptors=errors.interceptors(), options=standard.OPTIONS)
    runtime_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(containers, images), server)
    await standard.add_to(server, "tinyo.runtime.v1.RuntimeService")
    path = Path(config.run, "runtime.sock")
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    path.chmod(0o600)
    notify("READY=1")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(grace=1)
    await containers.close()
    await images.close()


def notify(state: str) -> None:
    """sd_notify(3): tells whoever started us, if they asked."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address.replace("@", "\0", 1))


def main() -> None:
    """The program `tinyo-runtime`."""
    config = settings.load()
    standard.begin(config.run, config.state)
    os.umask(0o022)  # containers see folders and files that we make
    lastwords.become_subreaper()
    asyncio.run(serve(config))
