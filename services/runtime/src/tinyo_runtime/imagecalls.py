"""RuntimeService: the calls that look at images and keep them in order."""

from collections.abc import AsyncIterator, Collection

from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.v1 import image_pb2 as v1

from tinyo_runtime import committing
from tinyo_runtime.containers import Containers
from tinyo_runtime.errors import Context
from tinyo_runtime.images import ImageStore, audit, catalog, details, usage
from tinyo_runtime.images.collector import collect
from tinyo_runtime.images.details import described
from tinyo_runtime.images.prune import InUse, prune


class ImageCalls:
    """A part of RuntimeService; see calls.py."""

    containers: Containers
    images: ImageStore

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        held = catalog.held(self.images)
        return pb.ListImagesResponse(images=[described(one.image, complete=one.complete) for one in held])

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Context) -> pb.RemoveImageResponse:
        removed = self.images.remove(request.reference, self.in_use().here)
        return pb.RemoveImageResponse(removed=removed)

    async def InspectImage(
        self, request: pb.InspectImageRequest, context: Context
    ) -> pb.InspectImageResponse:
        held, configuration, layers = await details.inspect(self.images, request.reference)
        image = described(held.image, complete=held.complete)
        return pb.InspectImageResponse(
            details=v1.ImageDetails(image=image, configuration=configuration, layers=layers)
        )

    async def TagImage(self, request: pb.TagImageRequest, context: Context) -> pb.TagImageResponse:
        held, complete = details.tag(self.images, request.reference, request.new_reference)
        return pb.TagImageResponse(image=described(held.image, complete=held.complete), reference=complete)

    async def CommitContainer(
        self, request: pb.CommitContainerRequest, context: Context
    ) -> pb.CommitContainerResponse:
        held, complete, notes = await committing.commit(self.containers, request)
        image = described(held.image, complete=held.complete)
        return pb.CommitContainerResponse(image=image, reference=complete, notes=notes)

    async def PruneImages(self, request: pb.PruneImagesRequest, context: Context) -> pb.PruneImagesResponse:
        removed, freed = await prune(
            self.images, lambda: self.in_use(request.in_use), all=request.all, dry_run=request.dry_run
        )
        return pb.PruneImagesResponse(removed=map(described, removed), freed_bytes=freed)

    async def CollectImages(
        self, request: pb.CollectImagesRequest, context: Context
    ) -> pb.CollectImagesResponse:
        collected = await collect(self.images, lambda: self.in_use(request.in_use), now=request.now)
        return pb.CollectImagesResponse(
            removed=map(described, collected.removed),
            freed_bytes=collected.freed,
            used_percent=round(collected.percent),
        )

    async def MeasureImages(
        self, request: pb.MeasureImagesRequest, context: Context
    ) -> pb.MeasureImagesResponse:
        total = await usage.measure(self.images, self.in_use(request.in_use))
        return pb.MeasureImagesResponse(
            images=[
                v1.ImageUsage(
                    image=described(one.held.image, complete=one.held.complete),
                    own_bytes=one.own,
                    shared_bytes=one.shared,
                    in_use=one.in_use,
                )
                for one in total.images
            ],
            blob_bytes=total.blobs,
            layer_bytes=total.layers,
            prunable_bytes=total.prunable,
            prunable_all_bytes=total.prunable_all,
        )

    async def VerifyImages(
        self, request: pb.VerifyImagesRequest, context: Context
    ) -> AsyncIterator[pb.VerifyImagesResponse]:
        async for finding in audit.audit(self.images, request.references, self.in_use().here):
            problems = [v1.ImageProblem(digest=digest, message=text) for digest, text in finding.problems]
            yield pb.VerifyImagesResponse(
                image=described(finding.image, complete=finding.complete), problems=problems
            )

    def in_use(self, elsewhere: Collection[str] = ()) -> InUse:
        """What containers need: those of this runtime, and those that the caller knows."""
        here = {container.config.image_digest for container in self.containers.all.values()}
        return InUse(here, elsewhere)
