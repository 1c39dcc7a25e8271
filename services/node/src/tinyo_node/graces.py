"""How much time those that are to end have, where somebody said so for this one time.

It is written together with what is wanted, so that a node or a runtime that dies in between goes on with it, and goes
when the process has ended, or shall not end any more. The time begins anew then.

Keys: `clusters/C/graces/ID` (tinyo.runtime.v1.StopRequest, as the runtime will be asked).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.node.v1.verbs_pb2 import RestartRequest
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1

if TYPE_CHECKING:
    from tinyo_node.reconcile import Reconciler
    from tinyo_node.sqlite import Changes, Table

    Said = pb.StopRequest | pb.RemoveRequest | RestartRequest

#: Milliseconds unless its spec or somebody says otherwise.
DEFAULT = 10_000
ENDED = (v1.PHASE_EXITED, v1.PHASE_FAILED)


def written(table: "Table") -> dict[str, int]:
    """Those of before, in milliseconds by the container's id."""
    known = map(rt.StopRequest.FromString, table.read("clusters/*/graces/*"))
    return {request.ids[0]: request.grace_ms for request in known}


def note(work: "Reconciler", containers: Iterable[v1.Container], request: "Said") -> "Changes":
    """What a request says counts in place of what an earlier one said; for one that has no process, nothing is said.
    To be written with what it wants."""
    changes: list[tuple[str, bytes | None]] = []
    for container in containers:
        if request.HasField("grace_ms") and container.status.phase not in ENDED:
            changes += given(work, container, request.grace_ms)
        else:
            changes += over(work, container)
    return changes


def given(work: "Reconciler", container: v1.Container, grace_ms: int) -> "Changes":
    """It has so much time. To be written, unless it has no process yet, and perhaps never will."""
    work.grace[container.id] = grace_ms
    if container.status.phase in (v1.PHASE_PENDING, v1.PHASE_PULLING):
        return []
    value = rt.StopRequest(ids=[container.id], grace_ms=grace_ms)
    return [(path(container), value.SerializeToString())]


def over(work: "Reconciler", container: v1.Container) -> "Changes":
    """It has ended, or goes on: what was said counts no more. To be written."""
    return [(path(container), None)] if work.grace.pop(container.id, None) is not None else []


async def forget(work: "Reconciler", container: v1.Container) -> None:
    """The same, written. OSError."""
    if changes := over(work, container):
        await work.state.table.write(changes)


def of(work: "Reconciler", container: v1.Container | rt.ContainerConfig) -> int:
    """Milliseconds that it is given now, by whoever wants it to stop or by its spec."""
    own = container.spec.stop_grace_ms if container.spec.HasField("stop_grace_ms") else DEFAULT
    return work.grace.get(container.id, own)


def path(container: v1.Container) -> str:
    """The key."""
    return f"clusters/{container.cluster}/graces/{container.id}"
