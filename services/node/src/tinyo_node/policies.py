"""Restart policies: whether a container whose process ended is started again, and after which time.

It waits before: 100 ms, then twice the time before, 60 s at most. A process that ran for 10 s begins anew.
"""

from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import policy_pb2 as policy
from tinyo.v1.health_pb2 import HEALTH_STATE_UNHEALTHY

#: Seconds to wait, at first and at most; and that a process runs for before its earlier ends count no more.
SHORT, LONG, STABLE = 0.1, 60.0, 10.0
EACH = (policy.RESTART_KIND_ALWAYS, policy.RESTART_KIND_UNLESS_STOPPED)


def is_wanted(container: v1.Container) -> bool:
    """Whether the policy of a container that ended has it started again."""
    if is_sick(container):
        return True
    restart = container.spec.restart
    if restart.kind != policy.RESTART_KIND_ON_FAILURE:
        return restart.kind in EACH
    failed = container.status.exit.code != 0
    return failed and (not restart.max_restarts or in_a_row(container.status) < restart.max_restarts)


def is_sick(container: v1.Container) -> bool:
    """Whether its present or last process was unhealthy, and is to be replaced by another for that."""
    return container.spec.health.restart and container.status.health.state == HEALTH_STATE_UNHEALTHY


def is_forgotten(container: v1.Container, own: rt.ContainerState | None) -> bool:
    """Whether it was stopped before a reboot, and runs after it all the same."""
    always = container.spec.restart.kind == policy.RESTART_KIND_ALWAYS
    return always and own is None and container.status.HasField("started_at")


def in_a_row(status: v1.ContainerStatus) -> int:
    """How often it was started again without having run for long since; one that is checked must have been healthy."""
    ran = status.finished_at.ToNanoseconds() - status.started_at.ToNanoseconds()
    stable = ran >= STABLE * 1e9 and (status.health.was_healthy or not status.HasField("health"))
    return 0 if stable else status.restarts


def delay(restarts: int) -> float:
    """Seconds to wait before a container is started again for this time in a row, from 1 upwards."""
    return float(min(LONG, SHORT * 2 ** min(restarts - 1, 16)))


def forget(status: v1.ContainerStatus) -> None:
    """Somebody starts or stops it: it does not wait any longer, and its earlier ends do not count."""
    status.ClearField("restarts")
    status.ClearField("next_start_at")
