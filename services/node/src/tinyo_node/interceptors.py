"""What every call of NodeService has in common: the cluster that it means, and how its errors are answered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from tinyo_node.errors import answered
from tinyo_node.lookup import cluster_name

OURS = "/tinyo.node.v1.NodeService/"

Context = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]]


class Answered(grpc.aio.ServerInterceptor):
    """Says "default" where a request names no cluster; errors end the call with a rich status."""

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler: Any = await continuation(details)
        if handler is None or not details.method.startswith(OURS):
            return handler  # type: ignore[no-any-return]
        wrap = stream if handler.response_streaming else single
        kind = f"{'stream' if handler.request_streaming else 'unary'}_"
        kind += "stream" if handler.response_streaming else "unary"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(  # type: ignore[no-any-return]
            wrap(getattr(handler, kind)), handler.request_deserializer, handler.response_serializer
        )


def single(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A call with one answer."""

    async def wrapped(request: Any, context: Context) -> Any:
        async with answered(context):
            name_cluster(request)
            return await call(request, context)

    return wrapped


def stream(call: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """A call with a stream of answers."""

    async def wrapped(request: Any, context: Context) -> AsyncIterator[Any]:
        async with answered(context):
            name_cluster(request)
            async for answer in call(request, context):
                yield answer

    return wrapped


def name_cluster(request: Any) -> None:
    """Fills in the cluster; INVALID_SPEC when it has no proper name."""
    if hasattr(request, "cluster"):
        request.cluster = cluster_name(request.cluster)
