"""RuntimeService: images come from archives, and go into them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc
from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.v1 import image_pb2 as v1

from tinyo_runtime import errors
from tinyo_runtime.errors import Context, TinyoError
from tinyo_runtime.images import ImageStore, export
from tinyo_runtime.images.details import described
from tinyo_runtime.images.imports import import_images

#: Seconds.
PATIENCE = 5


class ArchiveCalls:
    """A part of RuntimeService; see calls.py.

    What a call holds goes when the call has ended. Its generator may be collected much later, when it waits for a
    client to read that has gone.
    """

    images: ImageStore

    async def ImportImages(
        self, requests: AsyncIterator[pb.ImportImagesRequest], context: Context
    ) -> AsyncIterator[pb.ImportImagesResponse]:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            message = "the first message must say what to import"
            raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message)
        answers = Answers()

        async def chunks() -> AsyncGenerator[bytes, None]:
            async for request in requests:
                if request.data:
                    yield request.data

        def tell(progress: v1.PullProgress) -> None:
            answers.put(pb.ImportImagesResponse(progress=progress))

        async def work() -> None:
            failed = pb.ImportImagesResponse()
            try:
                with errors.told(failed.error):
                    async with (
                        aclosing(chunks()) as archive,
                        aclosing(import_images(self.images, first.start, archive, tell)) as images,
                    ):
                        async for image in images:
                            answers.put(pb.ImportImagesResponse(image=described(image)))
                if failed.HasField("error"):
                    answers.put(failed)
            finally:
                answers.put(None)

        task = asyncio.create_task(work())
        context.add_done_callback(lambda _: task.cancel())  # type: ignore[arg-type]
        try:
            while answer := await answers.get():
                yield answer
            await task
            with contextlib.suppress(TimeoutError):  # a client that still sends has time to hear of the error
                async with asyncio.timeout(PATIENCE):
                    async for _ in requests:
                        pass
        finally:
            task.cancel()
            await asyncio.wait([task])  # so that nothing of it is left when the call ends

    async def ExportImages(
        self, request: pb.ExportImagesRequest, context: Context
    ) -> AsyncIterator[pb.ExportImagesResponse]:
        with export.opened(self.images, request.references) as archive:
            context.add_done_callback(lambda _: archive.close())  # type: ignore[arg-type]
            images = [described(image) for image in archive.images]
            content = v1.ExportContent(images=images, size_bytes=archive.size)
            yield pb.ExportImagesResponse(content=content)
            async for chunk in archive.chunks():
                if chunk:
                    yield pb.ExportImagesResponse(data=chunk)


class Answers:
    """Answers in their order until None; who reads slowly gets only the last of the progress that nobody took."""

    def __init__(self) -> None:
        self._waiting: deque[pb.ImportImagesResponse | None] = deque()
        self._news = asyncio.Event()

    def put(self, answer: pb.ImportImagesResponse | None) -> None:
        last = self._waiting[-1] if self._waiting else None
        if answer and last and answer.HasField("progress") and last.HasField("progress"):
            self._waiting.pop()
        self._waiting.append(answer)
        self._news.set()

    async def get(self) -> pb.ImportImagesResponse | None:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()
