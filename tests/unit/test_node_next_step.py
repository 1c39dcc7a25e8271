"""The decision table of the reconciler."""

import pytest
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo_node.lifecycle import start, stop
from tinyo_node.limiting import update
from tinyo_node.reconcile import Step, create, next_step, pull, reflect, remove_stale

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


def limited(container: v1.Container) -> v1.Container:
    container.spec.resources.pids = 7
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
        (None, [state(RUNNING)], remove_stale),
        # an older container of that name goes first, whatever it does
        (desired(PENDING), [state(RUNNING, id="old")], remove_stale),
        (desired(RUNNING, started=1), [state(RUNNING, started=1), state(EXITED, id="old")], remove_stale),
        # the way up
        (desired(PENDING, digest=""), [], pull),
        (desired(PULLING, digest=""), [], pull),
        (desired(PULLING), [], create),
        (desired(PENDING), [state(CREATED)], reflect),
        (desired(CREATED), [state(CREATED)], start),
        (desired(CREATED), [state(RUNNING, started=1)], reflect),
        (desired(RUNNING, started=1), [state(RUNNING, started=1)], None),
        # exits are told, and wait until somebody asks
        (desired(RUNNING, started=1), [state(EXITED, started=1, finished=2)], reflect),
        (desired(EXITED, started=1, finished=2), [state(EXITED, started=1, finished=2)], None),
        (desired(PENDING, started=1, finished=2), [state(EXITED, started=1, finished=2)], start),
        (desired(PENDING, started=1, finished=2), [state(RUNNING, started=3)], reflect),
        # so do failures
        (desired(FAILED, digest=""), [], None),
        (desired(FAILED), [state(CREATED)], None),
        (desired(PENDING), [state(CREATED)], reflect),
        # stop and start
        (desired(RUNNING, started=1, want=HALT), [state(RUNNING, started=1)], stop),
        (desired(STOPPING, started=1, want=HALT), [state(STOPPING, started=1)], stop),
        (desired(EXITED, started=1, finished=2, want=HALT), [state(EXITED, started=1, finished=2)], None),
        (desired(PENDING, want=HALT, digest=""), [], None),
        # other limits, whether it runs or not
        (limited(desired(RUNNING, started=1)), [state(RUNNING, started=1)], update),
        (limited(desired(EXITED, started=1, finished=2)), [state(EXITED, started=1, finished=2)], update),
        (limited(desired(PENDING)), [], create),
        # the machine was restarted: the runtime knows nothing
        (desired(RUNNING, started=1), [], reflect),
        (desired(PENDING, started=1), [], create),
        (desired(EXITED, started=1, finished=2), [], None),
    ],
)  # fmt: skip
def test_next_step(wanted: v1.Container | None, states: list[rt.ContainerState], step: Step | None) -> None:
    assert next_step(wanted, states) == step
