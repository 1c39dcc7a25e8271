"""What a caller is told of images: how far a pull has come, and what an image is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tinyo.runtime.v1.runtime_pb2 import PullImageRequest
from tinyo.v1 import image_pb2 as v1

from tinyo_runtime.images import Image


class Reports:
    """The progress of one pull, on its way to whoever asked for it."""

    def __init__(self, request: PullImageRequest) -> None:
        self._queue: asyncio.Queue[v1.PullProgress | None] = asyncio.Queue()
        #: What is asked of ImageStore.pull beside the reference.
        self.wanted: dict[str, Any] = {
            "platform": request.platform,
            "refresh": request.refresh,
            "progress": self._queue.put_nowait,
        }

    async def until(self, pull: asyncio.Future[Image]) -> AsyncIterator[v1.PullProgress]:
        """Every report until the pull is through. When nobody listens any more, nobody needs the pull."""
        pull.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while report := await self._queue.get():
                yield report
        finally:
            pull.cancel()


def facts(image: Image) -> dict[str, Any]:
    """What is said of an image beside its digest."""
    return {
        "references": image.references,
        "platform": image.platform,
        "size_bytes": image.size,
        "created_unix": image.created,
    }
