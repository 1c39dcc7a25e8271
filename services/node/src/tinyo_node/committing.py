"""Which container becomes an image, in the words of the runtime."""

from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.errors import TinyoError
from tinyo_node.lookup import find

if TYPE_CHECKING:
    from tinyo_node.cluster import State


def of(state: "State", request: pb.CommitContainerRequest) -> rt.CommitContainerRequest:
    """CONTAINER_NOT_FOUND when there is none; CONTAINER_NEVER_STARTED when its image never came."""
    container = find(state, request.cluster, request.name)
    if not container.image_digest:
        name = container.spec.name
        message = (
            f"container {name!r} was never started, so there is nothing to make an image of: start it first"
        )
        failed = grpc.StatusCode.FAILED_PRECONDITION
        raise TinyoError(failed, "CONTAINER_NEVER_STARTED", message, {"name": name})
    return rt.CommitContainerRequest(
        id=container.id,
        image_digest=container.image_digest,
        reference=request.reference,
        options=request.options,
    )
