"""Each Apply that changes something is one revision of its cluster, and is kept as it was asked for.

Keys: `clusters/C/revisions/N` (tinyo.node.v1.ApplyRequest).
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1

if TYPE_CHECKING:
    from tinyo_node.cluster import State
    from tinyo_node.sqlite import Changes, Table


def latest(table: "Table") -> dict[str, int]:
    """Number of the latest revision, by cluster."""
    keys = table.reader.execute(
        "SELECT key FROM entries WHERE key GLOB 'clusters/*/revisions/*' ORDER BY key"
    )
    return {key.split("/")[1]: int(key.split("/")[3]) for (key,) in keys}


def record(
    state: "State", request: pb.ApplyRequest, accepted: pb.ApplyAccepted, changed: Collection[v1.Container]
) -> "Changes":
    """Numbers what an Apply changes, and notes who asked for it and when; what is to be written for that."""
    accepted.revision = state.log.revisions.get(request.cluster, 0) + bool(changed)
    if not changed:
        return []
    state.log.revisions[request.cluster] = accepted.revision
    for container in changed:
        container.revision, container.correlation_id = accepted.revision, request.correlation_id
        container.status.node_id = state.log.node_id
        if not container.HasField("created_at"):
            container.created_at.GetCurrentTime()
    path = f"clusters/{request.cluster}/revisions/{accepted.revision:020}"
    return [(path, request.SerializeToString())]
