"""What a service owes to whoever calls it: a socket of its own, limits, health and reflection."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tinyo_node import metrics
from tinyo_node.interceptors import Answered

if TYPE_CHECKING:
    from tinyo_node.reconcile import Reconciler

SERVICE = "tinyo.node.v1.NodeService"
#: Seconds.
PATIENCE = 2
#: When the machine has no memory left the node is among the last to be killed (proc_pid_oom_score_adj(5)).
OOM_SCORE = -900
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.keepalive_time_ms", 60_000),
)
INTERCEPTORS = (Answered(),)
RUNTIME_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),  # the configuration of an image may have 4 MiB
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def claim(path: Path) -> None:
    """Makes way for our socket; SystemExit when another node answers on it."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            with contextlib.suppress(PermissionError):  # whoever runs us in a container has not allowed it
                Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
            return
    raise SystemExit(f"another node answers on {path}: stop it first")


async def meet(runtime: grpc.aio.Channel) -> None:
    """Waits a little for a runtime that is started beside us: a command that comes at once is to find both."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(runtime.channel_ready(), PATIENCE)


async def add_standard_services(server: grpc.aio.Server, work: "Reconciler", path: Path) -> None:
    """gRPC health and server reflection, so that any client can look around; and metrics, on a socket beside `path`."""
    await metrics.Metrics(work).listen(path.with_name("metrics.sock"))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
