"""What an Apply changes in containers that are there already."""

from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1

from tinyo_node import policies

if TYPE_CHECKING:
    from tinyo_node.cluster import State

FIELDS = [field.name for field in v1.ContainerSpec.DESCRIPTOR.fields if field.name != "name"]
#: Those that a container can change without being replaced.
IN_PLACE = {"resources", "restart"}
#: Those that say something else when they are there and empty.
PRESENT = {"entrypoint", "stop_grace_ms"}
ENDED = (v1.PHASE_EXITED, v1.PHASE_FAILED)


def kept(state: "State", new: v1.Container, change: pb.Change) -> v1.Container | None:
    """The container that is already what is asked for, if there is one; else `new` takes over what stays.

    `change` says in which fields they differ, and what is done.
    """
    old = state.containers.get((new.cluster, new.spec.name))
    if not old:
        return None
    if old.spec.image == new.spec.image:  # the same tag stays the same image
        new.image_digest = old.image_digest
    change.action = pb.CHANGE_ACTION_REPLACE
    change.fields[:] = [name for name in FIELDS if value(old.spec, name) != value(new.spec, name)]
    if {*change.fields} - IN_PLACE:
        return None
    runs = old.desired == v1.DESIRED_STATE_RUNNING and old.status.phase not in ENDED
    if runs and not change.fields:
        change.action = pb.CHANGE_ACTION_NONE
        return old
    change.action = pb.CHANGE_ACTION_UPDATE if runs else pb.CHANGE_ACTION_START
    new.id = old.id
    new.created_at.CopyFrom(old.created_at)
    new.status.CopyFrom(old.status)
    if old.HasField("restart_of"):
        new.restart_of.CopyFrom(old.restart_of)
    if not runs:
        new.status.phase = v1.PHASE_PENDING
        new.status.ClearField("error")
        policies.forget(new.status)
    return None


def value(spec: v1.ContainerSpec, name: str) -> object:
    """What a spec says in a field."""
    return getattr(spec, name) if name not in PRESENT or spec.HasField(name) else None  # type: ignore[arg-type]
