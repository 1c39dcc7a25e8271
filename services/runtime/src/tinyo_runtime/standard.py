"""What every service of this kind has: limits on what it takes in, health, reflection, and a need of root."""

import os
import resource

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tinyo_runtime import failpoints, oom

failpoints.begin()  # where developers ask for them: before anything else happens

OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.keepalive_time_ms", 60_000),
)


async def add_to(server: grpc.aio.Server, service: str) -> None:
    """Lets any client look around (grpcurl), and ask whether the service serves."""
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([service, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def need_root() -> None:
    """SystemExit with one sentence for anybody else."""
    if os.geteuid() != 0:
        raise SystemExit("tinyo-runtime needs root: it makes namespaces, mounts and interfaces")
    oom.protect()


def open_many() -> None:
    """Lets us have as many open files as we may: each container needs a few."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
