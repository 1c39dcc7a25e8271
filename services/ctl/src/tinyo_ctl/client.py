"""Talks to a node; what the command line does, every program can do with this module.

with connect("unix:/run/tinyo/node.sock") as node:
    for container in node.List(ListRequest()).containers:
        print(container.spec.name, container.status.address)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub

from tinyo_ctl import refusals

#: Bytes of one answer: a list of ten thousand containers fits. Milliseconds between attempts to reach a node again.
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_reconnect_backoff_ms", 1000)]


@contextmanager
def connect(address: str) -> Iterator[NodeServiceStub]:
    """The calls of NodeService at an address ("unix:PATH"); those that fail raise refusals.NodeError."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel, refusals.node_errors():
        yield NodeServiceStub(channel)


def correlation_id() -> str:
    """A new id for a request; it comes back in every event that the request causes."""
    return os.urandom(8).hex()
