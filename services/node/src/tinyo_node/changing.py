"""What a container can change without another process: the step that brings the runtime to it, if one is needed."""

from typing import TYPE_CHECKING

from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1

from tinyo_node import limiting, renaming

if TYPE_CHECKING:
    from tinyo_node.reconcile import Step


def step(desired: v1.Container, own: rt.ContainerState | None) -> "Step | None":
    """The next one; None when the runtime has it all."""
    if own and own.config.id in renaming.misnamed:
        return renaming.tell
    if own and own.config.spec.resources != desired.spec.resources:
        return limiting.update
    return None
