"""RuntimeService: the call that brings images elsewhere."""

import asyncio
from collections.abc import AsyncIterator

from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.v1.push_pb2 import PushedImage

from tinyo_runtime.errors import Context
from tinyo_runtime.images import ImageStore
from tinyo_runtime.images.push import Report

#: Seconds between two reports of progress.
INTERVAL = 0.1


class PushCalls:
    """A part of RuntimeService; see calls.py."""

    images: ImageStore

    async def PushImage(
        self, request: pb.PushImageRequest, context: Context
    ) -> AsyncIterator[pb.PushImageResponse]:
        report = Report()
        push = asyncio.create_task(self.images.push(request.reference, request.target, report))
        push.add_done_callback(lambda _: report.changed.set())
        try:
            # What is told is always the last that is known: a caller who reads slowly makes us keep no more.
            while not push.done():
                await report.changed.wait()
                report.changed.clear()
                await asyncio.wait([push], timeout=INTERVAL)
                if report.states:
                    yield pb.PushImageResponse(progress=report.message())
        finally:  # when nobody listens any more, nobody needs it
            push.cancel()
            await asyncio.wait([push])
        yield pb.PushImageResponse(pushed=PushedImage(**push.result()._asdict()))
