"""What is desired and what is known, of every container: in memory, and in the table.

Memory is changed first and written at once, in order; a caller is answered, and an event shown, when the
write is durable. A write that fails is undone in memory.

Keys: `clusters/C/containers/NAME` (tinyo.v1.Container), `clusters/C/revisions/N` (the ApplyRequest that
made it), `clusters/C/graces/ID` (how long one may take to end), `events/N`.
"""

import os
from collections.abc import Callable, Collection, Sequence

from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.event_pb2 import Event

from tinyo_node import events, replacing, revisions, specs, undo
from tinyo_node.sqlite import Changes, Table

#: Cluster and name.
Key = tuple[str, str]


def key_of(one: v1.Container | ContainerConfig) -> Key:
    """Of a container, be it the node's or the runtime's."""
    return one.cluster, one.spec.name


class State:
    """Every container of every cluster on this node."""

    #: Called with each name of which something was written.
    touch: Callable[[Key], None]

    def __init__(self, table: Table) -> None:
        self.table, self.log = table, events.EventLog(table)
        known = map(v1.Container.FromString, table.read("clusters/*/containers/*"))
        self.containers = {key_of(container): container for container in known}

    async def apply(self, request: pb.ApplyRequest) -> tuple[pb.ApplyAccepted, Sequence[v1.Container]]:
        """Makes what is asked for the desired state: what that changes, and the containers it is about."""
        specs.complete(self, request)
        accepted, containers = pb.ApplyAccepted(), list[v1.Container]()
        for spec in request.containers:
            new = v1.Container(cluster=request.cluster, id=os.urandom(8).hex(), spec=spec)
            new.origin, new.desired = request.origin, v1.DESIRED_STATE_RUNNING
            new.status.phase = v1.PHASE_PENDING
            change = accepted.changes.add(name=spec.name, action=pb.CHANGE_ACTION_CREATE)
            containers.append(replacing.kept(self, new, change) or new)
        changed = {key_of(one): one for one in containers if self.containers.get(key_of(one)) is not one}
        with undo.on_failure(self, changed):
            self.containers |= changed
            also = revisions.record(self, request, accepted, changed.values())
            await self.write(changed.values(), *events.ACCEPTED, also=also)
        return accepted, containers

    async def remove(self, containers: Sequence[v1.Container], also: Changes = ()) -> None:
        """Wants these gone."""
        with undo.on_failure(self, {key_of(container): None for container in containers}):
            for container in containers:
                self.containers.pop(key_of(container), None)
            await self.write(containers, *events.STOPPING, also=also)

    async def write(self, containers: Collection[v1.Container], *news: Event, also: Changes = ()) -> None:
        """Writes what memory has of these, and news of each; durable when it returns."""
        changes = dict[str, bytes | None](also)
        for container in containers:
            current = self.containers.get(key_of(container))
            if current is None or current is container:  # else it was replaced meanwhile
                path = f"clusters/{container.cluster}/containers/{container.spec.name}"
                changes[path] = current.SerializeToString() if current else None
            self.log.note(changes, container, news)
        with undo.unwritten(self, containers):
            await self.table.write(changes.items())
        self.log.wake()
        for container in containers:
            self.touch(key_of(container))
