"""A container gets another name: in the table at once, and then in the runtime.

The runtime may still call it by the name before, also after a restart of either. What it tells is taken under the name
that the container has here, and the reconciler has the runtime catch up.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev

from tinyo_node import restarting, specs, undo
from tinyo_node.errors import TinyoError

if TYPE_CHECKING:
    from tinyo_node.cluster import Key, State
    from tinyo_node.reconcile import Reconciler

#: Ids of containers that the runtime calls by another name.
misnamed: set[str] = set()


async def rename(work: "Reconciler", old: v1.Container, name: str, correlation_id: str) -> v1.Container:
    """The container with its new name, durable, and known to the runtime if that can be reached. INVALID_SPEC, NAME_TAKEN,
    NAME_IN_USE."""
    await work.settled([old])
    check(work.state, old, name)
    if name == old.spec.name:
        return old
    new = v1.Container()
    new.CopyFrom(old)
    new.spec.name, new.correlation_id = name, correlation_id
    before, after = (old.cluster, old.spec.name), (old.cluster, name)
    with undo.on_failure(work.state, {before: None, after: new}), again_on_failure(work, old):
        del work.state.containers[before]
        work.state.containers[after] = new
        restarting.waits.pop(restarting.wait_of(old), None)  # the wait goes on under the new name
        if own := work.observed.get(new.id):
            correct(work.state, own)
        told = ev.Event(reason=ev.EVENT_REASON_RENAMED, message=f"was {old.spec.name}")
        gone = f"clusters/{old.cluster}/containers/{old.spec.name}"
        await work.state.write([new], told, also=[(gone, None)])
    await work.settled([new])
    return new


@contextlib.contextmanager
def again_on_failure(work: "Reconciler", old: v1.Container) -> Iterator[None]:
    """What the runtime has is known under the old name again, and looked at."""
    try:
        yield
    except BaseException:
        if own := work.observed.get(old.id):
            own.config.spec.name = old.spec.name
        misnamed.discard(old.id)
        work.touch((old.cluster, old.spec.name))
        raise


def check(state: "State", container: v1.Container, name: str) -> None:
    """Whether a container can have this name."""
    old = container.spec.name
    if state.containers.get((container.cluster, old)) is not container:
        message = f"container {old!r} has just been removed or renamed"
        raise TinyoError(grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", message, {"name": old})
    if not specs.NAME.fullmatch(name):
        message = f"name {name!r}: use at most 63 of a-z, 0-9, '_', '.' and '-', a letter or digit first"
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        raise TinyoError(invalid, "INVALID_SPEC", message, violations={"new_name": message})
    owner = state.containers.get((container.cluster, name))
    if owner and owner is not container:
        message = f"there is a container {name!r} already: choose another name, or remove that one first"
        taken = {"name": name, "origin": owner.origin}
        raise TinyoError(grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN", message, taken)
    joined = [
        one.spec.name
        for one in state.containers.values()
        if one.cluster == container.cluster and one.spec.network.container == old
    ]
    if joined and name != old:
        message = f"{', '.join(joined)} would not find {old!r} any more, whose network they are on"
        failed = grpc.StatusCode.FAILED_PRECONDITION
        raise TinyoError(failed, "NAME_IN_USE", message, {"name": old, "containers": ", ".join(joined)})


def correct(state: "State", *told: rt.ContainerState) -> None:
    """What the runtime tells of containers that have other names by now is taken under those."""
    for config in (own.config for own in told):
        here = state.containers.get((config.cluster, config.spec.name))
        if here and here.id == config.id:
            continue
        for (cluster, name), container in state.containers.items():
            if container.id == config.id and cluster == config.cluster:
                config.spec.name = name
                misnamed.add(config.id)


async def tell(work: "Reconciler", key: "Key") -> None:
    """Lets the runtime know."""
    container = work.state.containers[key]
    answer = await work.runtime.Rename(rt.RenameRequest(id=container.id, name=container.spec.name))
    if answer.result.HasField("error"):
        raise OSError(0, f"{container.id} cannot be renamed: {answer.result.error.message}")
    misnamed.discard(container.id)
    work.observe(answer.result.state)
