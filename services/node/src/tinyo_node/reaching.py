"""How calls are passed on to the runtime: one that was only just started is waited for a moment, and whoever goes
takes his call along."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.interceptors import Context

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

    async def passed_on(
        self, context: Context, call: Callable[[Any], Any], request: Any
    ) -> AsyncIterator[Any]:
        """The answers of a call of the runtime. When the caller's call has ended, that one has, too: whoever does not
        read any more leaves a generator behind that waits to be collected."""
        await self.reached()
        async for answer in self._followed(context, call(request)):
            yield answer

    async def conversed(
        self, context: Context, call: Callable[[Any], Any], first: Any, rest: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """The same for a call with a stream of requests, in which something runs until its `exit` comes. The rest of them
        follows when the runtime has agreed to the first, and ends with that exit: where grpc.aio writes into a call that
        has ended already, it says "Internal error from Core" instead of how."""
        await self.reached()
        over = asyncio.Event()

        async def requests() -> AsyncIterator[Any]:
            yield first
            await theirs.initial_metadata()  # comes with a refusal, too
            ended = asyncio.create_task(over.wait())
            while not theirs.done():
                coming = asyncio.ensure_future(anext(rest, None))
                coming.add_done_callback(lambda done: done.cancelled() or done.exception())
                await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
                if over.is_set() or (request := coming.result()) is None:
                    break
                yield request
            ended.cancel()

        theirs = call(requests())
        try:
            async for answer in self._followed(context, theirs):
                if answer.output.HasField("exit"):
                    over.set()
                yield answer
        finally:
            over.set()

    async def _followed(self, context: Context, theirs: Any) -> AsyncIterator[Any]:
        context.add_done_callback(lambda _: theirs.cancel())  # type: ignore[arg-type]
        async for answer in theirs:
            yield answer
