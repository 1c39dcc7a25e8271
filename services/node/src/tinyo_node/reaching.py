"""A runtime that was only just started is waited for a moment, by whoever passes a call on to it."""

from typing import TYPE_CHECKING

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt

if TYPE_CHECKING:
    from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceAsyncStub  # generated for type checkers alone

#: Seconds.
PATIENCE = 5


class Reaching:
    """What all parts of NodeService have that call the runtime."""

    runtime: "RuntimeServiceAsyncStub"

    async def reached(self) -> None:
        """Returns when the runtime answers, or does not for long; what is wrong later, the call itself says."""
        try:
            await self.runtime.GetVersion(rt.GetVersionRequest(), wait_for_ready=True, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
