"""NodeService: archives of images on their way between a client and the runtime, with whoever is slower in command."""

from collections.abc import AsyncIterator

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.errors import TinyoError, unavailable
from tinyo_node.interceptors import Context
from tinyo_node.reaching import Reaching


class ArchiveRelay(Reaching):
    """A part of NodeService; see server.py."""

    async def ImportImages(
        self, requests: AsyncIterator[pb.ImportImagesRequest], context: Context
    ) -> AsyncIterator[pb.ImportImagesResponse]:
        async def relayed() -> AsyncIterator[rt.ImportImagesRequest]:
            async for request in requests:
                if request.HasField("start"):
                    yield rt.ImportImagesRequest(start=request.start)
                else:
                    yield rt.ImportImagesRequest(data=request.data)

        try:
            async for answer in self.passed_on(context, self.runtime.ImportImages, relayed()):
                match answer.WhichOneof("result"):
                    case "progress":
                        yield pb.ImportImagesResponse(progress=answer.progress)
                    case "image":
                        yield pb.ImportImagesResponse(image=answer.image)
                    case "error":
                        raise TinyoError.of(answer.error)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.INTERNAL and not error.trailing_metadata():
                raise unavailable() from None  # grpc's own words for a write that failed
            raise

    async def ExportImages(
        self, request: pb.ExportImagesRequest, context: Context
    ) -> AsyncIterator[pb.ExportImagesResponse]:
        theirs = rt.ExportImagesRequest(references=request.references)
        async for answer in self.passed_on(context, self.runtime.ExportImages, theirs):
            if answer.HasField("content"):
                yield pb.ExportImagesResponse(content=answer.content)
            else:
                yield pb.ExportImagesResponse(data=answer.data)
