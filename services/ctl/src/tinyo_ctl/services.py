"""The services of this machine: where they are, and whether they answer. The first command starts them."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from socket import AF_UNIX, socket

from tinyo.node.v1.node_pb2_grpc import NodeServiceStub

from tinyo_ctl.client import connect

#: In the order in which they are stopped.
SERVICES = ("node", "runtime")
INSTANCE = os.environ.get("TINYO_INSTANCE", "tinyo")
RUN = Path("/run", INSTANCE)
#: Where gRPC reaches the node.
NODE = f"unix:{RUN}/node.sock"


def node(host: str) -> AbstractContextManager[NodeServiceStub]:
    """The node at `host`; without one this machine's, whose services are started when they do not answer."""
    if not host and not all(map(answers, SERVICES)):
        # Only then: most commands find them running.
        from tinyo_ctl.launch import launch

        launch()
    return connect(host or NODE)


def answers(service: str) -> bool:
    """Whether somebody listens on a service's socket."""
    with socket(AF_UNIX) as probe:
        return probe.connect_ex(str(RUN / f"{service}.sock")) == 0
