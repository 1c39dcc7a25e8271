"""tinyo-node: NodeService on a unix socket. The service's story is told in node.proto."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tinyo.node.v1 import node_pb2 as pb
from tinyo.node.v1 import node_pb2_grpc
from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceStub
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.event_pb2 import EVENT_REASON_EXITED, EVENT_REASON_FAILED, EVENT_REASON_RUNNING
from tinyo.v1.image_pb2 import PullProgress

from tinyo_node import settings
from tinyo_node.cluster import State, cluster_name
from tinyo_node.errors import answered
from tinyo_node.events import EventLog
from tinyo_node.lifecycle import Lifecycle
from tinyo_node.reconcile import Reconciler
from tinyo_node.relay import Relay
from tinyo_node.sqlite import SqliteStore

SERVICE = "tinyo.node.v1.NodeService"
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.keepalive_time_ms", 60_000),
)
RUNTIME_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
#: Events after which nobody needs to wait for a container any more.
SETTLING = (EVENT_REASON_RUNNING, EVENT_REASON_EXITED, EVENT_REASON_FAILED)

Context = grpc.aio.ServicerContext[Any, Any]


class NodeService(Lifecycle, Relay, node_pb2_grpc.NodeServiceServicer):
    """Apply, and looking at what is; the other calls stand in the modules that are named as bases."""

    def __init__(self, state: State, reconciler: Reconciler) -> None:
        self.state, self.reconciler, self.runtime = state, reconciler, reconciler.runtime

    async def Apply(self, request: pb.ApplyRequest, context: Context) -> AsyncIterator[pb.ApplyResponse]:
        async with answered(context):
            after = self.state.events.newest
            revision, changes, containers = await asyncio.shield(self.state.apply(request))
            for container in containers:
                self.reconciler.touch((container.cluster, container.spec.name))
            yield pb.ApplyResponse(accepted=pb.ApplyAccepted(revision=revision, changes=changes))
            changed = [
                container
                for container, change in zip(containers, changes, strict=True)
                if change.action != pb.CHANGE_ACTION_NONE
            ]
            async with contextlib.aclosing(self._follow(changed, after)) as news:
                async for answer in news:
                    yield answer
            yield pb.ApplyResponse(settled=pb.ApplySettled(containers=containers))

    async def _follow(
        self, containers: Sequence[v1.Container], after: int
    ) -> AsyncGenerator[pb.ApplyResponse, None]:
        """Events and pulls of these containers, until each has come to something or was replaced."""
        waiting = {container.id: container for container in containers}
        keys = {(container.cluster, container.spec.name) for container in containers}
        images = {container.spec.image for container in containers}
        pulls: asyncio.Queue[tuple[str, PullProgress]] = asyncio.Queue()
        events = self.state.events.watch(after, follow=True)
        self.state.listeners.add(pulls.put_nowait)
        event, pull = asyncio.ensure_future(anext(events)), asyncio.ensure_future(pulls.get())
        try:
            while waiting:
                await asyncio.wait([event, pull], return_when=asyncio.FIRST_COMPLETED)
                if pull.done():
                    image, progress = pull.result()
                    if image in images:
                        yield pb.ApplyResponse(progress=progress)
                    pull = asyncio.ensure_future(pulls.get())
                if event.done():
                    happened = event.result()
                    if (happened.cluster, happened.name) in keys:
                        yield pb.ApplyResponse(event=happened)
                    if happened.reason in SETTLING:
                        waiting.pop(happened.container_id, None)
                    waiting = {id: c for id, c in waiting.items() if self.state.is_current(c)}
                    event = asyncio.ensure_future(anext(events))
        finally:
            self.state.listeners.discard(pulls.put_nowait)
            for task in (event, pull):
                task.cancel()
            await asyncio.gather(event, pull, return_exceptions=True)

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        async with answered(context):
            cluster = cluster_name(request.cluster)
            found = [
                container
                for key, container in sorted(self.state.containers.items())
                if key[0] == cluster and request.origin in ("", container.origin)
            ]
            return pb.ListResponse(containers=found)

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        async with answered(context):
            return pb.GetResponse(container=self.state.find(request.cluster, request.name))

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        async with answered(context):
            cluster, names = cluster_name(request.cluster), set(request.names)
            async for event in self.state.events.watch(request.after_sequence, follow=request.follow):
                if event.cluster == cluster and (not names or event.name in names):
                    yield pb.WatchResponse(event=event)


async def serve(config: settings.Settings) -> None:
    """Runs until SIGTERM or SIGINT. Containers are touched by neither."""
    run, folder = Path(config.run), Path(config.state) / "node"
    for needed in (run, folder):
        needed.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = run / "node.sock"
    claim(path)
    store = SqliteStore(folder / "store.db")
    node_id = own_id(folder / "id")
    state = State(store, EventLog(store, node_id, int(config.events_kept)), node_id)
    await state.open()
    async with grpc.aio.insecure_channel(config.runtime, options=RUNTIME_OPTIONS) as channel:
        reconciler = Reconciler(state, RuntimeServiceStub(channel))
        server = grpc.aio.server(options=SERVER_OPTIONS)
        node_pb2_grpc.add_NodeServiceServicer_to_server(NodeService(state, reconciler), server)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        following = asyncio.create_task(reconciler.run())
        notify("READY=1")
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        await server.stop(grace=0.5)
        following.cancel()
    await store.close()


def claim(path: Path) -> None:
    """Makes way for our socket; SystemExit when another node answers on it."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            return
    raise SystemExit(f"another node answers on {path}: stop it first")


def own_id(path: Path) -> str:
    """The node's id, made once."""
    if not path.exists():
        path.write_text(os.urandom(8).hex())
    return path.read_text()


def notify(state: str) -> None:
    """sd_notify(3): tells whoever started us, if they asked."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address.replace("@", "\0", 1))


def main() -> None:
    """The program `tinyo-node`."""
    os.umask(0o077)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    asyncio.run(serve(settings.load()))
