"""NodeService: calls about images, passed on to the runtime with what this node's containers need."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node import collecting, committing
from tinyo_node.interceptors import Context
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class ImageRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        await self.reached()
        theirs = await self.runtime.ListImages(rt.ListImagesRequest())
        return pb.ListImagesResponse(images=theirs.images)

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Context) -> pb.RemoveImageResponse:
        await self.reached()
        theirs = await self.runtime.RemoveImage(rt.RemoveImageRequest(reference=request.reference))
        return pb.RemoveImageResponse(removed=theirs.removed)

    async def InspectImage(
        self, request: pb.InspectImageRequest, context: Context
    ) -> pb.InspectImageResponse:
        await self.reached()
        theirs = await self.runtime.InspectImage(rt.InspectImageRequest(reference=request.reference))
        return pb.InspectImageResponse(details=theirs.details)

    async def TagImage(self, request: pb.TagImageRequest, context: Context) -> pb.TagImageResponse:
        await self.reached()
        theirs = await self.runtime.TagImage(
            rt.TagImageRequest(reference=request.reference, new_reference=request.new_reference)
        )
        return pb.TagImageResponse(image=theirs.image, reference=theirs.reference)

    async def CommitContainer(
        self, request: pb.CommitContainerRequest, context: Context
    ) -> pb.CommitContainerResponse:
        await self.reached()
        theirs = await self.runtime.CommitContainer(committing.of(self.state, request))
        return pb.CommitContainerResponse(image=theirs.image, reference=theirs.reference, notes=theirs.notes)

    async def PruneImages(self, request: pb.PruneImagesRequest, context: Context) -> pb.PruneImagesResponse:
        await self.reached()
        theirs = await self.runtime.PruneImages(
            rt.PruneImagesRequest(all=request.all, dry_run=request.dry_run, in_use=self.images_in_use())
        )
        return pb.PruneImagesResponse(removed=theirs.removed, freed_bytes=theirs.freed_bytes)

    async def MeasureImages(
        self, request: pb.MeasureImagesRequest, context: Context
    ) -> pb.MeasureImagesResponse:
        await self.reached()
        theirs = await self.runtime.MeasureImages(rt.MeasureImagesRequest(in_use=self.images_in_use()))
        return pb.MeasureImagesResponse(
            images=theirs.images,
            blob_bytes=theirs.blob_bytes,
            layer_bytes=theirs.layer_bytes,
            prunable_bytes=theirs.prunable_bytes,
            prunable_all_bytes=theirs.prunable_all_bytes,
        )

    async def VerifyImages(
        self, request: pb.VerifyImagesRequest, context: Context
    ) -> AsyncIterator[pb.VerifyImagesResponse]:
        theirs = rt.VerifyImagesRequest(references=request.references)
        async for answer in self.passed_on(context, self.runtime.VerifyImages, theirs):
            yield pb.VerifyImagesResponse(image=answer.image, problems=answer.problems)

    async def PushImage(
        self, request: pb.PushImageRequest, context: Context
    ) -> AsyncIterator[pb.PushImageResponse]:
        theirs = rt.PushImageRequest(reference=request.reference, target=request.target)
        async for answer in self.passed_on(context, self.runtime.PushImage, theirs):
            if answer.HasField("progress"):
                yield pb.PushImageResponse(progress=answer.progress)
            else:
                yield pb.PushImageResponse(pushed=answer.pushed)

    def images_in_use(self) -> set[str]:
        """What containers need, whatever the runtime knows of them."""
        return collecting.images_in_use(self.state)
