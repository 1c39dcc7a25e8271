"""The decision table of the reconciler."""

import pytest
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo_node.reconcile import Step, next_step

PENDING, PULLING, CREATED, RUNNING = v1.PHASE_PENDING, v1.PHASE_PULLING, v1.PHASE_CREATED, v1.PHASE_RUNNING
STOPPING, EXITED, FAILED = v1.PHASE_STOPPING, v1.PHASE_EXITED, v1.PHASE_FAILED
RUN, HALT = v1.DESIRED_STATE_RUNNING, v1.DESIRED_STATE_STOPPED


def desired(
    phase: int, *, want: int = RUN, digest: str = "sha256:1", started: int = 0, finished: int = 0
) -> v1.Container:
    container = v1.Container(cluster="default", id="new", desired=want, image_digest=digest)  # type: ignore[arg-type]
    container.spec.name = "web"
    container.status.phase = phase  # type: ignore[assignment]
    if started:
        container.status.started_at.FromSeconds(started)
    if finished:
        container.status.finished_at.FromSeconds(finished)
    return container


def state(phase: int, *, id: str = "new", started: int = 0, finished: int = 0) -> rt.ContainerState:
    result = rt.ContainerState(phase=phase)  # type: ignore[arg-type]
    result.config.id = id
    if started:
        result.started_at.FromSeconds(started)
    if finished:
        result.finished_at.FromSeconds(finished)
    return result


@pytest.mark.parametrize(
    ("wanted", "states", "step"),
    [
        # nothing is wanted
        (None, [], None),
        (None, [state(RUNNING)], Step.REMOVE_STALE),
        # an older container of that name goes first, whatever it does
        (desired(PENDING), [state(RUNNING, id="old")], Step.REMOVE_STALE),
        (desired(RUNNING, started=1), [state(RUNNING, started=1), state(EXITED, id="old")], Step.REMOVE_STALE),
        # the way up
        (desired(PENDING, digest=""), [], Step.PULL),
        (desired(PULLING, digest=""), [], Step.PULL),
        (desired(PULLING), [], Step.CREATE),
        (desired(PENDING), [state(CREATED)], Step.REFLECT),
        (desired(CREATED), [state(CREATED)], Step.START),
        (desired(CREATED), [state(RUNNING, started=1)], Step.REFLECT),
        (desired(RUNNING, started=1), [state(RUNNING, started=1)], None),
        # exits are told, and wait until somebody asks
        (desired(RUNNING, started=1), [state(EXITED, started=1, finished=2)], Step.REFLECT),
        (desired(EXITED, started=1, finished=2), [state(EXITED, started=1, finished=2)], None),
        (desired(PENDING, started=1, finished=2), [state(EXITED, started=1, finished=2)], Step.START),
        (desired(PENDING, started=1, finished=2), [state(RUNNING, started=3)], Step.REFLECT),
        # so do failures
        (desired(FAILED, digest=""), [], None),
        (desired(FAILED), [state(CREATED)], None),
        (desired(PENDING), [state(CREATED)], Step.REFLECT),
        # stop and start
        (desired(RUNNING, started=1, want=HALT), [state(RUNNING, started=1)], Step.STOP),
        (desired(STOPPING, started=1, want=HALT), [state(STOPPING, started=1)], Step.STOP),
        (desired(EXITED, started=1, finished=2, want=HALT), [state(EXITED, started=1, finished=2)], None),
        (desired(PENDING, want=HALT, digest=""), [], None),
        # the machine was restarted: the runtime knows nothing
        (desired(RUNNING, started=1), [], Step.REFLECT),
        (desired(PENDING, started=1), [], Step.CREATE),
        (desired(EXITED, started=1, finished=2), [], None),
    ],
)  # fmt: skip
def test_next_step(wanted: v1.Container | None, states: list[rt.ContainerState], step: Step | None) -> None:
    assert next_step(wanted, states) == step
