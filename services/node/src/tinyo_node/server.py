"""tinyo-node: NodeService on a unix socket. The service's story is told in node.proto."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.node.v1 import node_pb2_grpc
from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceStub

from tinyo_node import calls, endpoint, following, history, lifecycle, lookup, options
from tinyo_node.cluster import State
from tinyo_node.interceptors import Context
from tinyo_node.reconcile import Reconciler
from tinyo_node.sqlite import Table


class NodeService(calls.Calls, node_pb2_grpc.NodeServiceServicer):
    """What brings containers up and takes them away; all other calls stand in tinyo_node.calls."""

    def __init__(self, state: State, reconciler: Reconciler) -> None:
        self.state, self.reconciler, self.runtime = state, reconciler, reconciler.runtime

    async def Apply(self, request: pb.ApplyRequest, context: Context) -> AsyncIterator[pb.ApplyResponse]:
        after = self.state.log.newest
        accepted, containers = await asyncio.shield(self.state.apply(request))
        yield pb.ApplyResponse(accepted=accepted)
        settled = asyncio.create_task(self.reconciler.settled(containers))
        async for answer in following.apply(self.state, containers, after, settled):
            yield answer
        await settled
        yield pb.ApplyResponse(settled=pb.ApplySettled(containers=containers))

    async def Remove(self, request: pb.RemoveRequest, context: Context) -> AsyncIterator[pb.RemoveResponse]:
        lookup.resolve(self.state, request)
        containers = [self.state.containers[request.cluster, name] for name in request.names]
        after = self.state.log.newest
        also = lifecycle.allow(self.reconciler, containers, request)
        await asyncio.shield(self.state.remove(containers, also))
        settled = asyncio.create_task(self.reconciler.settled(containers))
        async for answer in following.remove(self.state, containers, after, settled):
            yield answer
        await settled
        yield pb.RemoveResponse(settled=pb.RemoveSettled(names=request.names))

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        found = [one for one in self.state.containers.values() if one.cluster == request.cluster]
        lookup.arrange(found, request)
        return pb.ListResponse(containers=found)


async def serve(state: str, run: str, runtime: str) -> None:
    """Runs until SIGTERM or SIGINT; containers are touched by neither.

    `state` is the folder of what must outlive a reboot, `run` that of the sockets, `runtime` a gRPC address.
    """
    path, folder = Path(run, "node.sock"), Path(state, "node")
    for needed in (path.parent, folder):
        needed.mkdir(mode=0o700, parents=True, exist_ok=True)
    endpoint.claim(path)
    known = State(Table(folder / "store.db"))
    async with grpc.aio.insecure_channel(runtime, options=[*endpoint.RUNTIME_OPTIONS]) as channel:
        reconciler = Reconciler(known, RuntimeServiceStub(channel))
        server = grpc.aio.server(interceptors=[*endpoint.INTERCEPTORS], options=[*endpoint.SERVER_OPTIONS])
        node_pb2_grpc.add_NodeServiceServicer_to_server(NodeService(known, reconciler), server)
        await endpoint.add_standard_services(server, reconciler, path)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        path.chmod(0o600)
        work = asyncio.create_task(reconciler.follow())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        await endpoint.meet(channel)
        notify("READY=1")
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await server.stop(grace=0.5)
    await history.close(known.table)


def notify(state: str) -> None:
    """sd_notify(3): tells whoever started us, if they asked."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address.replace("@", "\0", 1))


def main() -> None:
    """The program `tinyo-node`."""
    os.umask(0o077)
    name = os.environ.get("TINYO_INSTANCE", "tinyo")
    places = {"state": f"/var/lib/{name}", "run": f"/run/{name}", "runtime": f"unix:/run/{name}/runtime.sock"}
    options.override(places)
    asyncio.run(serve(**places))
