"""What every service of this kind has: limits on what it takes in, health, reflection, and a need of root."""

import fcntl
import os
import resource
import time

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tinyo_runtime import failpoints, oom

failpoints.begin()  # where developers ask for them: before anything else happens

#: Seconds.
PATIENCE = 2

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


def begin(*folders: str) -> None:
    """All that follows, for a service with these folders. SystemExit."""
    need_root()
    for folder in folders:
        be_alone(folder)
    open_many()


def need_root() -> None:
    """SystemExit with one sentence for anybody else."""
    if os.geteuid() != 0:
        raise SystemExit("tinyo-runtime needs root: it makes namespaces, mounts and interfaces")
    oom.protect()


def be_alone(folder: str) -> None:
    """Two of one instance would take each other's containers, and tables of nftables, for their own. SystemExit when there
    is another one after a moment, in which one that was killed lets go (flock(2)). What we hold ends with us."""
    os.makedirs(folder, 0o700, exist_ok=True)
    lock = os.open(f"{folder}/runtime.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SystemExit(f"another tinyo-runtime has {folder}: stop it first") from None
            time.sleep(0.05)


def open_many() -> None:
    """Lets us have as many open files as we may: each container needs a few."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
