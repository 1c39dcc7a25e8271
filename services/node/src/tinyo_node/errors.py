"""Errors of the node: an exception here, rich statuses on the wire, `tinyo.v1.Error` inside streams.

What the runtime answers is passed on as it is. The table of reasons is in docs/architecture.md.
"""

import contextlib
import errno
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from tinyo.v1.error_pb2 import Error

DOMAIN = "tinyo"


class TinyoError(Exception):
    """What was wrong and what to do about it. `violations`: field of the request → what is wrong with it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        violations: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.metadata, self.violations = dict(metadata or {}), dict(violations or {})

    @classmethod
    def of(cls, error: Error) -> "TinyoError":
        """What the runtime said inside a stream."""
        code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
        violations = {error.field: error.message} if error.field else {}
        return cls(code, error.reason, error.message, error.metadata, violations)

    def to_status(self) -> grpc.Status:
        """As the end of a call."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status.details.append(packed(info))
        if self.violations:
            fields = [
                error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                for field, text in self.violations.items()
            ]
            status.details.append(packed(error_details_pb2.BadRequest(field_violations=fields)))
        converted: grpc.Status = rpc_status.to_status(status)
        return converted


def packed(detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> Any:
    """A detail as google.rpc.Status carries it."""
    result = Any()
    result.Pack(detail)
    return result


def from_runtime(error: grpc.aio.AioRpcError) -> Error:
    """What a call of the runtime failed with, as data."""
    result = Error(code=error.code().value[0], reason="START_FAILED", message=error.details() or "")
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            result.reason = info.reason
            result.metadata.update(info.metadata)
    return result


def is_transport(error: grpc.aio.AioRpcError) -> bool:
    """Whether the runtime was not reached (as opposed to: it answered that the registry was not)."""
    return error.code() == grpc.StatusCode.UNAVAILABLE and from_runtime(error).reason == "START_FAILED"


def unavailable() -> TinyoError:
    """RUNTIME_UNAVAILABLE."""
    message = "the runtime does not answer: see `tinyo services status`"
    return TinyoError(grpc.StatusCode.UNAVAILABLE, "RUNTIME_UNAVAILABLE", message)


@contextlib.contextmanager
def of_store() -> Iterator[None]:
    """Turns what SQLite raises into an OSError that says whether the disk is full."""
    try:
        yield
    except sqlite3.Error as error:
        number = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(number, f"the store cannot write: {error}") from error


@contextlib.asynccontextmanager
async def answered(context: grpc.aio.ServicerContext[object, object]) -> AsyncIterator[None]:
    """Ends the call with the status of an error that is raised in here."""
    try:
        yield
    except TinyoError as error:
        await context.abort_with_status(error.to_status())
    except grpc.aio.AioRpcError as error:  # the runtime's: details and all
        if error.code() == grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
            await context.abort_with_status(unavailable().to_status())
        await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason, code = (
            ("DISK_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED)
            if full
            else ("STORE_FAILED", grpc.StatusCode.INTERNAL)
        )
        await context.abort_with_status(TinyoError(code, reason, str(error.args[-1])).to_status())
