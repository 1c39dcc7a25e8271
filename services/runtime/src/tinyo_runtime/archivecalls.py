"""RuntimeService: images come from archives, and go into them."""

import asyncio
import contextlib
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
        answers: asyncio.Queue[pb.ImportImagesResponse | None] = asyncio.Queue()

        async def chunks() -> AsyncGenerator[bytes, None]:
            async for request in requests:
                if request.data:
                    yield request.data

        def tell(progress: v1.PullProgress) -> None:
            answers.put_nowait(pb.ImportImagesResponse(progress=progress))

        async def work() -> None:
            failed = pb.ImportImagesResponse()
            try:
                with errors.told(failed.error):
                    async with (
                        aclosing(chunks()) as archive,
                        aclosing(import_images(self.images, first.start, archive, tell)) as images,
                    ):
                        async for image in images:
                            answers.put_nowait(pb.ImportImagesResponse(image=described(image)))
                if failed.HasField("error"):
                    answers.put_nowait(failed)
            finally:
                answers.put_nowait(None)

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
