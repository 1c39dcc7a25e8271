"""Calls that a node refused or could not do, as failures that say why."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from tinyo.v1.error_pb2 import Error

from tinyo_ctl.failures import Failure
from tinyo_ctl.tell import safe

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
def node_errors() -> Iterator[None]:
    """Turns what gRPC raises into NodeError."""
    try:
        yield
    except grpc.RpcError as error:
        raise NodeError.of(error) from None
