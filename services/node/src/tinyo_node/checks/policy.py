"""Whether a container is started again when its process ended."""

from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.policy_pb2 import (
    RESTART_KIND_NO,
    RESTART_KIND_ON_FAILURE,
    RESTART_KIND_UNSPECIFIED,
    RestartKind,
)


def fill(spec: ContainerSpec) -> None:
    """A container that is not started again has no policy, however that was said."""
    if spec.restart == type(spec.restart)(kind=RESTART_KIND_NO) or not spec.restart.ByteSize():
        spec.ClearField("restart")


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong."""
    kind = spec.restart.kind
    if kind not in RestartKind.values() or (spec.HasField("restart") and kind == RESTART_KIND_UNSPECIFIED):
        yield "restart.kind", f"restart {kind} is unknown: say no, on-failure, always or unless-stopped"
    elif spec.restart.max_restarts and kind != RESTART_KIND_ON_FAILURE:
        yield "restart.max_restarts", "only on-failure counts how often: remove the number"
