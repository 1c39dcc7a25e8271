"""NodeService: volumes, of which only the node knows all containers that use them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1.storage_pb2 import Volume

from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class VolumeRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: Context) -> pb.ListVolumesResponse:
        await self.reached()
        theirs = await self.runtime.ListVolumes(rt.ListVolumesRequest())
        return pb.ListVolumesResponse(volumes=self._known(theirs.volumes, request.cluster))

    async def CreateVolume(
        self, request: pb.CreateVolumeRequest, context: Context
    ) -> pb.CreateVolumeResponse:
        await self.reached()
        theirs = await self.runtime.CreateVolume(rt.CreateVolumeRequest(name=request.name))
        return pb.CreateVolumeResponse(volume=theirs.volume, created=theirs.created)

    async def RemoveVolumes(
        self, request: pb.RemoveVolumesRequest, context: Context
    ) -> pb.RemoveVolumesResponse:
        users = self._users(request.cluster)
        for name in request.names:
            if name in users:
                holders = ", ".join(users[name])
                message = f"volume {name!r} is used by {holders}: remove what uses it first"
                what = {"name": name, "holder": holders}
                raise TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "VOLUME_IN_USE", message, what)
        await self.reached()
        theirs = await self.runtime.RemoveVolumes(
            rt.RemoveVolumesRequest(names=request.names, in_use=self._users(request.cluster))
        )
        return pb.RemoveVolumesResponse(removed=theirs.removed)

    async def InspectVolume(
        self, request: pb.InspectVolumeRequest, context: Context
    ) -> pb.InspectVolumeResponse:
        await self.reached()
        theirs = await self.runtime.InspectVolume(rt.InspectVolumeRequest(name=request.name))
        return pb.InspectVolumeResponse(volume=self._known([theirs.volume], request.cluster)[0])

    async def PruneVolumes(
        self, request: pb.PruneVolumesRequest, context: Context
    ) -> pb.PruneVolumesResponse:
        await self.reached()
        theirs = await self.runtime.PruneVolumes(
            rt.PruneVolumesRequest(dry_run=request.dry_run, in_use=self._users(request.cluster))
        )
        return pb.PruneVolumesResponse(removed=theirs.removed)

    def _known(self, volumes: Iterable[Volume], cluster: str) -> list[Volume]:
        """With who uses each."""
        users, found = self._users(cluster), list(volumes)
        for volume in found:
            volume.containers.extend(users.get(volume.name, ()))
        return found

    def _users(self, cluster: str) -> dict[str, list[str]]:
        """Names of the containers of all clusters, stopped ones too, by the volume that they use."""
        users: dict[str, list[str]] = {}
        for (theirs, name), container in sorted(self.state.containers.items()):
            for volume in dict.fromkeys(mount.volume for mount in container.spec.mounts if mount.volume):
                users.setdefault(volume, []).append(name if theirs == cluster else f"{theirs}/{name}")
        return users
