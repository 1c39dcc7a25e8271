"""RuntimeService: the call that brings images elsewhere."""

import asyncio
from collections.abc import AsyncIterator

from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.v1.push_pb2 import PushedImage, PushProgress

from tinyo_runtime.errors import Context
from tinyo_runtime.images import ImageStore


class PushCalls:
    """A part of RuntimeService; see calls.py."""

    images: ImageStore

    async def PushImage(
        self, request: pb.PushImageRequest, context: Context
    ) -> AsyncIterator[pb.PushImageResponse]:
        # Only the last that is known: a caller who reads slowly makes us keep no more.
        latest: list[PushProgress] = []
        changed = asyncio.Event()

        def tell(progress: PushProgress) -> None:
            latest[:] = [progress]
            changed.set()

        push = asyncio.create_task(self.images.push(request.reference, request.target, tell))
        push.add_done_callback(lambda _: changed.set())
        try:
            while not push.done() or latest:
                await changed.wait()
                changed.clear()
                if latest:
                    yield pb.PushImageResponse(progress=latest.pop())
        finally:  # when nobody listens any more, nobody needs it
            push.cancel()
            await asyncio.wait([push])
        yield pb.PushImageResponse(pushed=PushedImage(**push.result()._asdict()))
