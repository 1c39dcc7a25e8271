"""The services of this machine: where they are, whether they answer, and how the first command starts them."""

import os
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket
from subprocess import DEVNULL, Popen

from tinyo.node.v1.node_pb2_grpc import NodeServiceStub

from tinyo_ctl import startup
from tinyo_ctl.client import connect

#: In the order in which they are stopped.
SERVICES = ("node", "runtime")
INSTANCE = os.environ.get("TINYO_INSTANCE", "tinyo")
RUN = Path("/run", INSTANCE)
#: Where gRPC reaches the node.
NODE = f"unix:{RUN}/node.sock"


def node(host: str) -> AbstractContextManager[NodeServiceStub]:
    """The node at `host`; without one this machine's, whose services are started when they do not answer."""
    if not host:
        ensure()
    return connect(host or NODE)


def ensure() -> list[str]:
    """Starts those services that do not answer, and returns which, when they are ready. ServicesError."""
    if all(map(answers, SERVICES)):
        return []
    startup.need_root()
    RUN.mkdir(mode=0o700, exist_ok=True)
    with startup.alone(RUN):
        missing = [service for service in SERVICES if not answers(service)]
        if not startup.by_systemd(INSTANCE, missing):
            start(missing)
    return missing


def answers(service: str) -> bool:
    """Whether somebody listens on a service's socket."""
    with socket(AF_UNIX) as probe:
        return probe.connect_ex(str(RUN / f"{service}.sock")) == 0


def start(services: list[str]) -> None:
    """Starts services side by side, and returns when each has said READY=1 (sd_notify(3))."""
    with ExitStack() as stack:
        waiting = []
        for service in services:
            address = RUN / f"{service}.ready"
            address.unlink(missing_ok=True)
            ready = stack.enter_context(socket(AF_UNIX, SOCK_DGRAM))
            ready.bind(str(address))
            stack.callback(address.unlink)
            watch = stack.enter_context(startup.watched(spawn(service, address), ready))
            waiting.append((watch, ready))
        for watch, ready in waiting:
            watch.wait()
            ready.recv(64)


def spawn(service: str, ready: Path) -> Popen[bytes]:
    """A service as a daemon: it outlives this command, and says at `ready` that it can be used."""
    program = Path(sys.executable).with_name(f"tinyo-{service}")
    environ = {**os.environ, "NOTIFY_SOCKET": str(ready)}
    with startup.explained(program), open(RUN / f"{service}.log", "ab") as log:
        return Popen(
            [program], env=environ, cwd="/", stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
