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
        #: Only what was reported last: who reads slowly misses the others.
        self._latest: v1.PullProgress | None = None
        self._news = asyncio.Event()
        #: What is asked of ImageStore.pull beside the reference.
        self.wanted: dict[str, Any] = {
            "platform": request.platform,
            "refresh": request.refresh,
            "progress": self._take,
        }

    def _take(self, report: v1.PullProgress) -> None:
        self._latest = report
        self._news.set()

    async def until(self, pull: asyncio.Future[Image]) -> AsyncIterator[v1.PullProgress]:
        """Reports until the pull is through. When nobody listens any more, nobody needs the pull."""
        pull.add_done_callback(lambda _: self._news.set())
        try:
            while self._latest or not pull.done():
                await self._news.wait()
                self._news.clear()
                if report := self._latest:
                    self._latest = None
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
