"""What is desired and what is known, of every container: in memory, and in the Store.

Memory is changed first and written at once, in order; a caller is answered, and an event shown, when the
write is durable. A write that fails is undone in memory.

Keys: `clusters/C/containers/NAME` (tinyo.v1.Container), `clusters/C/revisions/N` (the ApplyRequest that
made it), `events/N`.
"""

import os
from collections.abc import Callable, Iterable, Sequence

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.image_pb2 import PullProgress

from tinyo_node import specs
from tinyo_node.errors import TinyoError
from tinyo_node.events import EventLog
from tinyo_node.store import Delete, Op, Put, Store

#: Cluster and name.
Key = tuple[str, str]

FIELDS = ("image", "command", "env", "ports", "mounts", "workdir", "user")


class State:
    """Every container of every cluster on this node."""

    def __init__(self, store: Store, events: EventLog, node_id: str) -> None:
        self.store, self.events, self.node_id = store, events, node_id
        self.containers: dict[Key, v1.Container] = {}
        self.revisions: dict[str, int] = {}
        #: Called with every pull's reference, as its spec has it, and progress.
        self.listeners: set[Callable[[tuple[str, PullProgress]], None]] = set()

    async def open(self) -> None:
        """Reads what the Store has."""
        await self.events.open()
        for entry in await self.store.list("clusters/"):
            _, cluster, kind, name = entry.key.split("/", 3)
            if kind == "containers":
                self.containers[cluster, name] = v1.Container.FromString(entry.value or b"")
            else:
                self.revisions[cluster] = int(name)

    def progressed(self, reference: str, progress: PullProgress) -> None:
        """Tells everybody who follows an Apply."""
        for listener in tuple(self.listeners):
            listener((reference, progress))

    async def save(self, container: v1.Container, *events: ev.Event) -> None:
        """Writes a container, which was changed in memory, and what is to be told about it."""
        ops: list[Op] = []
        if self.is_current(container):  # else it was replaced or removed meanwhile
            key = path(container.cluster, container.spec.name)
            ops.append(Put(key=key, value=container.SerializeToString()))
        await self._write(ops, [(container, event) for event in events])

    async def removed(self, key: Key, id: str) -> None:
        """Nothing is left of a container in the runtime."""
        gone = v1.Container(cluster=key[0], id=id, spec=v1.ContainerSpec(name=key[1]))
        await self._write([], [(gone, ev.Event(reason=ev.EVENT_REASON_REMOVED))])

    async def _write(self, ops: Sequence[Op], events: Iterable[tuple[v1.Container, ev.Event]]) -> None:
        """One transaction for changes and the events about them."""
        ops, last = list(ops), 0
        for container, event in events:
            event.cluster, event.name = container.cluster, container.spec.name
            event.container_id, event.correlation_id = container.id, container.correlation_id
            ops += self.events.write(event)
            last = event.sequence
        if ops:
            await self.store.transact(ops)
            self.events.written(last)

    async def apply(self, request: pb.ApplyRequest) -> tuple[int, list[pb.Change], list[v1.Container]]:
        """Makes what is asked for the desired state: revision, changes, and the containers it is about."""
        cluster = cluster_name(request.cluster)
        names = {spec.name for spec in request.containers}
        others = [c for key, c in self.containers.items() if not (key[0] == cluster and key[1] in names)]
        wanted = specs.complete(request.containers, others)
        for index, spec in enumerate(wanted):
            old = self.containers.get((cluster, spec.name))
            if old and old.origin != request.origin:
                raise name_taken(old, f"containers[{index}].name")
        before, revision = dict(self.containers), self.revisions.get(cluster, 0)
        changes = [self._change(cluster, spec, request, revision + 1) for spec in wanted]
        result = [self.containers[cluster, spec.name] for spec in wanted]
        changed = [
            container
            for container, change in zip(result, changes, strict=True)
            if change.action != pb.CHANGE_ACTION_NONE
        ]
        if changed:
            revision += 1
            stored = f"clusters/{cluster}/revisions/{revision:020}"
            ops: list[Op] = [Put(key=stored, value=request.SerializeToString())]
            ops += [Put(key=path(cluster, c.spec.name), value=c.SerializeToString()) for c in changed]
            self.revisions[cluster] = revision
            try:
                await self._write(
                    ops, [(c, ev.Event(reason=reason)) for c in changed for reason in ACCEPTED_EVENTS]
                )
            except BaseException:
                self.containers, self.revisions[cluster] = before, revision - 1
                raise
        return revision, changes, result

    def _change(
        self, cluster: str, spec: v1.ContainerSpec, request: pb.ApplyRequest, revision: int
    ) -> pb.Change:
        """Puts one container's new desired state into memory, and says what that changes."""
        old = self.containers.get((cluster, spec.name))
        new = v1.Container(
            cluster=cluster,
            id=os.urandom(8).hex(),
            spec=spec,
            desired=v1.DESIRED_STATE_RUNNING,
            revision=revision,
            origin=request.origin,
            correlation_id=request.correlation_id,
            status=v1.ContainerStatus(phase=v1.PHASE_PENDING, node_id=self.node_id),
        )
        new.created_at.GetCurrentTime()
        action, fields = pb.CHANGE_ACTION_CREATE, list[str]()
        if old:
            fields = [name for name in FIELDS if getattr(old.spec, name) != getattr(spec, name)]
            action = pb.CHANGE_ACTION_REPLACE
            if old.spec.image == spec.image:  # the same tag stays the same image
                new.image_digest = old.image_digest
            if not fields:
                runs = old.desired == v1.DESIRED_STATE_RUNNING and old.status.phase not in (
                    v1.PHASE_EXITED,
                    v1.PHASE_FAILED,
                )
                action = pb.CHANGE_ACTION_NONE if runs else pb.CHANGE_ACTION_START
                if runs:
                    return pb.Change(name=spec.name, action=action)
                new.id = old.id
                new.status.CopyFrom(old.status)
                new.status.phase = v1.PHASE_PENDING
                new.status.ClearField("error")
        self.containers[cluster, spec.name] = new
        return pb.Change(name=spec.name, action=action, fields=fields)

    def is_current(self, container: v1.Container) -> bool:
        """Whether this is still what is desired under its name."""
        return self.containers.get((container.cluster, container.spec.name)) is container

    def find(self, cluster: str, name: str) -> v1.Container:
        """By name, id, or the beginning of an id (4 digits at least)."""
        cluster = cluster_name(cluster)
        if exact := self.containers.get((cluster, name)):
            return exact
        here = [container for key, container in self.containers.items() if key[0] == cluster]
        found = [container for container in here if len(name) >= 4 and container.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        message = f"there is no container {name!r} in cluster {cluster!r}: `tinyo ls -a` shows all"
        if found:
            message = f"{name!r} is the beginning of several ids: {', '.join(c.id for c in found)}"
        raise TinyoError(grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", message, {"name": name})

    async def remove(self, containers: Sequence[v1.Container]) -> None:
        """Wants these gone."""
        before = dict(self.containers)
        for container in containers:
            self.containers.pop((container.cluster, container.spec.name), None)
        try:
            await self._write(
                [Delete(key=path(c.cluster, c.spec.name)) for c in containers],
                [(c, ev.Event(reason=ev.EVENT_REASON_STOPPING)) for c in containers],
            )
        except BaseException:
            self.containers = before
            raise


ACCEPTED_EVENTS = (ev.EVENT_REASON_APPLIED, ev.EVENT_REASON_SCHEDULED)


def path(cluster: str, name: str) -> str:
    """Key of a container in the Store."""
    return f"clusters/{cluster}/containers/{name}"


def cluster_name(name: str) -> str:
    """The cluster that a request means. INVALID_SPEC for a malformed name."""
    if name and not specs.NAME.fullmatch(name):
        message = f"{name!r} is no name for a cluster"
        raise TinyoError(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, violations={"cluster": message}
        )
    return name or "default"


def name_taken(owner: v1.Container, field: str) -> TinyoError:
    """Somebody else's container has that name."""
    name = owner.spec.name
    message = f"the name {name!r} belongs to {owner.origin}: say another `name`, or remove that one first"
    return TinyoError(
        grpc.StatusCode.ALREADY_EXISTS,
        "NAME_TAKEN",
        message,
        {"name": name, "origin": owner.origin},
        {field: message},
    )
