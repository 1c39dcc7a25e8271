"""RuntimeService: the calls about volumes."""

import asyncio

from tinyo.runtime.v1 import runtime_pb2 as pb

from tinyo_runtime import volumes
from tinyo_runtime.containers import Containers
from tinyo_runtime.errors import Context


class VolumeCalls:
    """A part of RuntimeService; see calls.py."""

    containers: Containers

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: Context) -> pb.ListVolumesResponse:
        return pb.ListVolumesResponse(volumes=volumes.known(self.containers.folder))

    async def CreateVolume(
        self, request: pb.CreateVolumeRequest, context: Context
    ) -> pb.CreateVolumeResponse:
        created = volumes.make(self.containers.folder, request.name)
        told = volumes.told(self.containers.folder, request.name)
        return pb.CreateVolumeResponse(volume=told, created=created)

    async def RemoveVolumes(
        self, request: pb.RemoveVolumesRequest, context: Context
    ) -> pb.RemoveVolumesResponse:
        volumes.remove(self.containers, request.names, request.in_use)
        return pb.RemoveVolumesResponse(removed=request.names)

    async def InspectVolume(
        self, request: pb.InspectVolumeRequest, context: Context
    ) -> pb.InspectVolumeResponse:
        volume = volumes.told(self.containers.folder, request.name)
        return pb.InspectVolumeResponse(volume=await asyncio.to_thread(volumes.measured, volume))

    async def PruneVolumes(
        self, request: pb.PruneVolumesRequest, context: Context
    ) -> pb.PruneVolumesResponse:
        known = volumes.known(self.containers.folder)
        using = volumes.used(self.containers, request.in_use)
        unused = [volume for volume in known if volume.name not in using]
        await asyncio.to_thread(lambda: [*map(volumes.measured, unused)])
        if not request.dry_run:  # what came into use meanwhile stays
            using = volumes.used(self.containers, request.in_use)
            unused = [volume for volume in unused if volume.name not in using]
            volumes.remove(self.containers, [volume.name for volume in unused], request.in_use)
        return pb.PruneVolumesResponse(removed=unused)
