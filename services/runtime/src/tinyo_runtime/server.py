"""tinyo-runtime: RuntimeService on a unix socket. The service's story is told in runtime.proto."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2_grpc
from tinyo.v1.image_pb2 import Image as ImageMessage
from tinyo.v1.image_pb2 import PullProgress
from tinyo.v1.version_pb2 import Version

from tinyo_runtime import execs, lastwords, logreader, recover, settings
from tinyo_runtime.containers import Containers
from tinyo_runtime.errors import TinyoError, answer_errors
from tinyo_runtime.images import Image, ImageStore
from tinyo_runtime.network import Network

VERSION = Version(program="0.1.0", contract="v1.0", features=[])
SERVICE = "tinyo.runtime.v1.RuntimeService"
OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.keepalive_time_ms", 60_000),
)

Context = grpc.aio.ServicerContext[Any, Any]


class RuntimeService(runtime_pb2_grpc.RuntimeServiceServicer):
    """Each call in the words of the contract; the work is done by the modules beside this one."""

    def __init__(self, containers: Containers, images: ImageStore) -> None:
        self.containers = containers
        self.images = images

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        return pb.GetVersionResponse(version=VERSION)

    @answer_errors
    async def PullImage(
        self, request: pb.PullImageRequest, context: Context
    ) -> AsyncIterator[pb.PullImageResponse]:
        latest: asyncio.Queue[PullProgress | None] = asyncio.Queue()
        pull = asyncio.ensure_future(
            self.images.pull(
                request.reference, request.platform, refresh=request.refresh, progress=latest.put_nowait
            )
        )
        pull.add_done_callback(lambda _: latest.put_nowait(None))
        try:
            while progress := await latest.get():
                yield pb.PullImageResponse(progress=progress)
            yield pb.PullImageResponse(image=describe(await pull))
        finally:
            pull.cancel()

    @answer_errors
    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=map(describe, self.images.list()))

    @answer_errors
    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Context) -> pb.RemoveImageResponse:
        in_use = {container.config.image_digest for container in self.containers.all.values()}
        return pb.RemoveImageResponse(removed=self.images.remove(request.reference, in_use))

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        async def create(config: pb.ContainerConfig) -> None:
            container = await self.containers.create(config)
            if request.start:
                await self.containers.start(container)

        configs = {config.id: config for config in request.containers}
        return pb.CreateResponse(results=await self._each(configs, lambda id: create(configs[id])))

    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartResponse:
        async def start(id: str) -> None:
            await self.containers.start(self.containers.get(id))

        return pb.StartResponse(results=await self._each(request.ids, start))

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        async def stop(id: str) -> None:
            await self.containers.stop(self.containers.get(id), request.grace_ms / 1000)

        return pb.StopResponse(results=await self._each(request.ids, stop))

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        async def delete(id: str) -> None:
            if container := self.containers.all.get(id):
                await self.containers.delete(container)

        return pb.DeleteResponse(results=await self._each(request.ids, delete))

    async def _each(
        self, ids: Iterable[str], call: Callable[[str], Awaitable[None]]
    ) -> list[pb.ContainerResult]:
        """The call for every id at once; an error is part of that id's answer."""

        async def one(id: str) -> pb.ContainerResult:
            result = pb.ContainerResult(id=id)
            try:
                await call(id)
            except (TinyoError, OSError) as error:
                result.error.CopyFrom(TinyoError.of(error).to_proto())
            if container := self.containers.all.get(id):
                result.state.CopyFrom(container.state)
            return result

        # Shielded: what was begun is finished, whether or not the caller still waits.
        return await asyncio.shield(asyncio.gather(*map(one, ids)))

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        states = [container.state for container in self.containers.all.values()]
        return pb.ListResponse(containers=states, sequence=self.containers.changes.sequence)

    @answer_errors
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        async for change in self.containers.changes.watch(request.after_sequence):
            yield change

    @answer_errors
    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        container = self.containers.get(request.id)
        tail = request.tail if request.HasField("tail") else None
        async for entries in logreader.read(container, tail=tail, follow=request.follow):
            yield pb.LogsResponse(entries=entries)

    @answer_errors
    async def Exec(
        self, requests: AsyncIterator[pb.ExecRequest], context: Context
    ) -> AsyncIterator[pb.ExecResponse]:
        async for output in execs.run(self.containers, requests):
            yield pb.ExecResponse(output=output)


def describe(image: Image) -> ImageMessage:
    """An image in the words of the contract."""
    return ImageMessage(
        references=image.references,
        digest=image.digest,
        platform=image.platform,
        size_bytes=image.size,
        created_unix=image.created,
    )


async def serve(config: settings.Settings) -> None:
    """Runs until SIGTERM or SIGINT. Containers are not touched by either."""
    run = Path(config.run)
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(config.state).mkdir(mode=0o700, parents=True, exist_ok=True)
    images = ImageStore(
        Path(config.state), insecure=frozenset(filter(None, config.insecure_registries.split(",")))
    )
    network = Network(config)
    containers = Containers(config, images, network)
    await recover.recover(containers)

    server = grpc.aio.server(options=OPTIONS)
    runtime_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(containers, images), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    path = run / "runtime.sock"
    path.unlink(missing_ok=True)
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
    if os.geteuid() != 0:
        raise SystemExit("tinyo-runtime needs root: it makes namespaces, mounts and interfaces")
    os.umask(0o077)
    lastwords.become_subreaper()
    asyncio.run(serve(config))
