"""Errors as callers see them: one sentence, a stable reason, facts (the table in docs/architecture.md).

The same error is a Python exception here, `tinyo.v1.Error` inside streams and batches, and a
`google.rpc.Status` with ErrorInfo and BadRequest when a whole call fails.
"""

import contextlib
import errno
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from tinyo.v1.error_pb2 import Error

DOMAIN = "tinyo"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def printable(text: str) -> str:
    """Text that a terminal shows and never obeys: control characters, bidi marks and the like as in repr()."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


#: What a disk says, by errno.
_DISK = {
    errno.ENOSPC: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "DISK_FULL",
        "the disk is full{}: free some space (or inodes, see `df -i`) and try again",
    ),
    errno.EDQUOT: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "DISK_FULL",
        "the disk quota is used up{}: free some space, or have it raised, and try again",
    ),
    errno.EROFS: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "DISK_READ_ONLY",
        "the file system is read-only{}: make it writable and try again (`dmesg` may say why it is)",
    ),
}


class TinyoError(Exception):
    """What went wrong and what to do about it; text that came from outside is made harmless here."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        field: str = "",
    ) -> None:
        self.code = code
        self.reason = reason
        self.message = printable(message)
        self.metadata = {key: printable(value) for key, value in (metadata or {}).items()}
        self.field = printable(field)
        super().__init__(self.message)

    @classmethod
    def of(cls, error: Exception) -> "TinyoError":
        """The error as it is to be answered: a full disk has a reason of its own, the unforeseen is INTERNAL."""
        if isinstance(error, TinyoError):
            return error
        if isinstance(error, OSError) and error.errno in _DISK:
            path = str(error.filename or "")
            code, reason, message = _DISK[error.errno]
            return cls(code, reason, message.format(f" at {path}" if path else ""), {"path": path})
        return cls(grpc.StatusCode.INTERNAL, "INTERNAL", str(error) or type(error).__name__)

    def to_proto(self) -> Error:
        """The error as data."""
        return Error(
            code=self.code.value[0],
            reason=self.reason,
            message=self.message,
            metadata=self.metadata,
            field=self.field,
        )

    def to_status(self) -> grpc.Status:
        """The error as the end of a call, for `context.abort_with_status`."""
        details = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)]
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        result: grpc.Status = rpc_status.to_status(status)
        return result


class AnswerErrors(grpc.aio.ServerInterceptor):
    """Every call of ours (one answer, or a stream of them) ends with the status of its error."""

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(f"/{DOMAIN}."):
            return handler
        requests = "stream" if handler.request_streaming else "unary"
        answers = "stream" if handler.response_streaming else "unary"
        method = getattr(handler, f"{requests}_{answers}")
        make = getattr(grpc, f"{requests}_{answers}_rpc_method_handler")
        wrapped = _stream(method) if handler.response_streaming else _answer(method)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)


def interceptors() -> list[grpc.aio.ServerInterceptor]:
    """What stands between a server and its service."""
    return [AnswerErrors()]


@contextlib.asynccontextmanager
async def _answered(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except (TinyoError, OSError) as error:
        await context.abort_with_status(TinyoError.of(error).to_status())


def _answer(method: Any) -> Any:
    async def answer(request: Any, context: Context) -> Any:
        async with _answered(context):
            return await method(request, context)

    return answer


def _stream(method: Any) -> Any:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with _answered(context), contextlib.aclosing(method(request, context)) as answers:
            async for item in answers:
                yield item

    return stream


@contextlib.contextmanager
def told(error: Error) -> Iterator[None]:
    """What goes wrong in here becomes part of an answer."""
    try:
        yield
    except (TinyoError, OSError) as caught:
        error.CopyFrom(TinyoError.of(caught).to_proto())
