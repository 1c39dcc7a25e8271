"""Fields of a spec that the first example does without: defaults, and what can be wrong with them.

Each module of this package sees to one subject: `fill(spec)` sets defaults, and `check(spec)` yields what is wrong,
as (field, sentence), such as ("health.interval_ms", "…"). Both only look at the spec.
"""

from collections.abc import Callable, Iterator

from tinyo.v1.container_pb2 import ContainerSpec

from tinyo_node.checks import (
    devices,
    health,
    limits,
    log,
    network,
    policy,
    process,
    security,
    storage,
    streams,
    userns,
)

FILL: tuple[Callable[[ContainerSpec], None], ...] = (
    devices.fill,
    health.fill,
    policy.fill,
    process.fill,
    streams.fill,
)
CHECK: tuple[Callable[[ContainerSpec], Iterator[tuple[str, str]]], ...] = (
    devices.check,
    health.check,
    limits.check,
    log.check,
    network.check,
    policy.check,
    process.check,
    security.check,
    storage.check,
    streams.check,
    userns.check,
)


def fill(spec: ContainerSpec) -> None:
    """Sets every default."""
    for one in FILL:
        one(spec)


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong."""
    for one in CHECK:
        yield from one(spec)
