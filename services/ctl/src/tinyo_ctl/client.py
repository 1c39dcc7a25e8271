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
from tinyo.v1.error_pb2 import Error

from tinyo_ctl import Failure
from tinyo_ctl.render import safe

#: Bytes of one answer: a list of ten thousand containers fits.
MESSAGE_LIMIT = 64 << 20
UNAVAILABLE, INVALID_ARGUMENT = 14, 3
#: Reasons that mean: a service is not there. No reason at all comes from gRPC itself.
UNREACHABLE = ("", "RUNTIME_UNAVAILABLE")


class NodeError(Failure):
    """A call that the node refused or could not do; `errors` has one for each field that is to blame."""

    def __init__(self, errors: list[Error]) -> None:
        self.errors = errors
        if errors[0].code == UNAVAILABLE and errors[0].reason in UNREACHABLE:
            self.exit_code = 3
        elif errors[0].code == INVALID_ARGUMENT:
            self.exit_code = 2
        super().__init__("\n".join(safe(error.message) for error in errors))

    @classmethod
    def of(cls, failed: grpc.RpcError) -> "NodeError":
        """A failed call as data: google.rpc.Status with ErrorInfo and BadRequest, where the node sent them."""
        # Read only when something failed: importing these takes longer than asking the node.
        from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
        from grpc_status import rpc_status

        error = Error(code=failed.code().value[0], message=failed.details() or failed.code().name)
        fields: list[tuple[str, str]] = []
        status = rpc_status.from_call(failed)
        for detail in status.details if status else ():
            info, bad = ErrorInfo(), BadRequest()
            if detail.Unpack(info):
                error.reason = info.reason
                error.metadata.update(info.metadata)
            elif detail.Unpack(bad):
                fields.extend((violation.field, violation.description) for violation in bad.field_violations)
        if not status and error.code == UNAVAILABLE:
            error.message = f"the node cannot be reached: {error.message}"
        if not fields:
            return cls([error])
        return cls(
            [
                Error(
                    code=error.code, reason=error.reason, metadata=error.metadata, message=text, field=field
                )
                for field, text in fields
            ]
        )


@contextmanager
def connect(address: str) -> Iterator[NodeServiceStub]:
    """The calls of NodeService at an address ("unix:PATH"); those that fail raise NodeError."""
    options = [("grpc.max_receive_message_length", MESSAGE_LIMIT)]
    with grpc.insecure_channel(address, options=options) as channel, node_errors():
        yield NodeServiceStub(channel)


def correlation_id() -> str:
    """A new id for a request; it comes back in every event that the request causes."""
    return os.urandom(8).hex()


@contextmanager
def node_errors() -> Iterator[None]:
    """Turns what gRPC raises into NodeError."""
    try:
        yield
    except grpc.RpcError as error:
        raise NodeError.of(error) from None
