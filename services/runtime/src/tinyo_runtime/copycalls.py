"""RuntimeService: files come out of containers, and go into them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from tinyo.runtime.v1 import runtime_pb2 as pb

from tinyo_runtime import copying
from tinyo_runtime.containers import Containers
from tinyo_runtime.errors import Context, TinyoError

#: Seconds that a client that still sends has to hear of an error.
PATIENCE = 5


class CopyCalls:
    """A part of RuntimeService; see calls.py."""

    containers: Containers

    async def CopyOut(
        self, request: pb.CopyOutRequest, context: Context
    ) -> AsyncIterator[pb.CopyOutResponse]:
        copy = copying.copy_out(self.containers, request.id, request.path, follow=request.follow)
        async with contextlib.aclosing(copy):
            async for data in copy:
                yield pb.CopyOutResponse(data=data)

    async def CopyIn(self, requests: AsyncIterator[pb.CopyInRequest], context: Context) -> pb.CopyInResponse:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            message = "the first message must say where to"
            raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message)

        async def data() -> AsyncGenerator[bytes, None]:
            async for request in requests:
                yield request.data

        try:
            start = first.start
            await copying.copy_in(self.containers, start.id, start.path, data(), archive=start.archive)
        except Exception:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    async for _ in requests:
                        pass
            raise
        return pb.CopyInResponse()
