"""The decision table of the reconciler."""

import pytest
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import health_pb2 as health
from tinyo.v1 import policy_pb2 as policy
from tinyo_node import removing
from tinyo_node.lifecycle import start, stop
from tinyo_node.limiting import update
from tinyo_node.policies import delay, in_a_row
from tinyo_node.reconcile import Step, create, next_step, pull, reflect, remove_stale
from tinyo_node.removing import take_away
from tinyo_node.removing import wait as wait_for_clients
from tinyo_node.restarting import again, end, plan, renew, revive, wait, wait_of, waits

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


def anew(container: v1.Container, of: int) -> v1.Container:
    """One whose process of that time is to be followed by another."""
    container.restart_of.FromSeconds(of)
    return container


def paused(state: rt.ContainerState) -> rt.ContainerState:
    state.paused = True
    return state


ON_FAILURE, ALWAYS = policy.RESTART_KIND_ON_FAILURE, policy.RESTART_KIND_ALWAYS
UNLESS_STOPPED = policy.RESTART_KIND_UNLESS_STOPPED


def ended(
    kind: int,
    *,
    code: int = 0,
    most: int = 0,
    restarts: int = 0,
    ran: int = 1,
    next_start: int = 0,
    over: bool | None = None,
    want: int = RUN,
) -> v1.Container:
    """One that began at 1 and has a restart policy; `over`: whether its wait is, where this node times it."""
    container = desired(EXITED, started=1, finished=1 + ran, want=want)
    container.id = f"{kind}-{over}"
    container.spec.restart.kind = kind  # type: ignore[assignment]
    container.spec.restart.max_restarts = most
    container.status.exit.code = code
    container.status.restarts = restarts
    if next_start:
        container.status.next_start_at.FromSeconds(next_start)
    if over is not None:
        waits[wait_of(container)] = over
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
        # another process in place of the one that was started at 1
        (anew(desired(RUNNING, started=1), 1), [state(RUNNING, started=1)], stop),
        (anew(desired(STOPPING, started=1), 1), [state(STOPPING, started=1)], stop),
        (anew(desired(EXITED, started=1, finished=2), 1), [state(EXITED, started=1, finished=2)], renew),
        (anew(desired(PENDING, started=1, finished=2), 1), [state(EXITED, started=1, finished=2)], start),
        (anew(desired(RUNNING, started=3), 1), [state(RUNNING, started=3)], None),
        (anew(desired(EXITED, started=3, finished=4), 1), [state(EXITED, started=3, finished=4)], None),
        (anew(desired(EXITED, started=1, finished=2, want=HALT), 1), [state(EXITED, started=1, finished=2)], None),
        # pauses are told
        (desired(RUNNING, started=1), [paused(state(RUNNING, started=1))], reflect),
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


@pytest.mark.parametrize(
    ("wanted", "step"),
    [
        # which ends are followed by a start
        (ended(policy.RESTART_KIND_UNSPECIFIED, code=1), None),
        (ended(policy.RESTART_KIND_NO, code=1), None),
        (ended(ALWAYS), plan),
        (ended(ALWAYS, code=1, restarts=1000), plan),
        (ended(UNLESS_STOPPED), plan),
        (ended(ON_FAILURE), None),
        (ended(ON_FAILURE, code=1, restarts=1000), plan),
        (ended(ON_FAILURE, code=-1), plan),
        (ended(ON_FAILURE, code=1, most=2, restarts=1), plan),
        (ended(ON_FAILURE, code=1, most=2, restarts=2), None),
        (ended(ON_FAILURE, code=1, most=2, restarts=2, ran=10), plan),
        # the wait, in this run of the node or an earlier one
        (ended(ALWAYS, restarts=1, next_start=5), wait),
        (ended(ALWAYS, restarts=1, next_start=5, over=False), None),
        (ended(ALWAYS, restarts=1, next_start=5, over=True), again),
        # what somebody stopped
        (ended(ALWAYS, want=HALT), None),
        (ended(UNLESS_STOPPED, want=HALT), None),
        (ended(ALWAYS, restarts=1, next_start=5, over=True, want=HALT), None),
    ],
)  # fmt: skip
def test_restart_policies(wanted: v1.Container, step: Step | None) -> None:
    assert (
        next_step(
            wanted, [state(EXITED, id=wanted.id, started=1, finished=wanted.status.finished_at.seconds)]
        )
        == step
    )


@pytest.mark.parametrize(
    ("wanted", "step"),
    [
        (ended(ALWAYS, want=HALT), revive),
        (ended(UNLESS_STOPPED, want=HALT), None),
        (ended(ON_FAILURE, code=1, want=HALT), None),
        (desired(PENDING, want=HALT), None),
        (ended(ALWAYS), plan),
        (ended(UNLESS_STOPPED), plan),
        (ended(ALWAYS, restarts=1, next_start=5, over=True), again),
    ],
)  # fmt: skip
def test_restart_policies_after_a_reboot(wanted: v1.Container, step: Step | None) -> None:
    assert next_step(wanted, []) == step


def test_a_wait_is_that_of_one_end() -> None:
    container = ended(ALWAYS, restarts=1, next_start=5, over=True)
    container.status.next_start_at.FromSeconds(6)
    assert next_step(container, [state(EXITED, id=container.id, started=1, finished=2)]) == wait


def test_waits_grow_up_to_a_minute_and_begin_anew_after_ten_seconds() -> None:
    assert [delay(restarts) for restarts in (1, 2, 3, 9, 10, 11, 2**32 - 1)] == [
        0.1,
        0.2,
        0.4,
        25.6,
        51.2,
        60,
        60,
    ]
    assert in_a_row(ended(ALWAYS, restarts=7, ran=9).status) == 7
    assert in_a_row(ended(ALWAYS, restarts=7, ran=10).status) == 0


UNHEALTHY = health.HEALTH_STATE_UNHEALTHY


def sick(container: v1.Container, *, restart: bool = True, healthy_before: bool = False) -> v1.Container:
    container.spec.health.restart = restart
    container.status.health.state = UNHEALTHY
    container.status.health.was_healthy = healthy_before
    return container


@pytest.mark.parametrize(
    ("wanted", "own", "step"),
    [
        # what checks found is told
        (desired(RUNNING, started=1), state(RUNNING, started=1), reflect),
        # and is the end of a process where that is wanted
        (sick(desired(RUNNING, started=1)), state(RUNNING, started=1), end),
        (sick(desired(RUNNING, started=1), restart=False), state(RUNNING, started=1), None),
        (sick(desired(RUNNING, started=1, want=HALT)), state(RUNNING, started=1), stop),
        (sick(desired(STOPPING, started=1)), state(STOPPING, started=1), None),
        # and the beginning of another, whatever its policy
        (sick(ended(policy.RESTART_KIND_UNSPECIFIED)), state(EXITED, started=1, finished=2), plan),
        (sick(ended(ON_FAILURE, code=1, most=1, restarts=1)), state(EXITED, started=1, finished=2), plan),
        (sick(ended(ALWAYS, restarts=1, next_start=5)), state(EXITED, started=1, finished=2), wait),
        (sick(ended(ON_FAILURE), restart=False), state(EXITED, started=1, finished=2), None),
        (sick(ended(ALWAYS, want=HALT)), state(EXITED, started=1, finished=2), None),
    ],
)  # fmt: skip
def test_unhealthy_containers(wanted: v1.Container, own: rt.ContainerState, step: Step | None) -> None:
    own.config.id = wanted.id
    own.health.state = UNHEALTHY
    own.health.was_healthy = wanted.status.health.was_healthy
    assert next_step(wanted, [own]) == step


def test_who_never_was_healthy_did_not_run_for_long() -> None:
    assert in_a_row(sick(ended(ALWAYS, restarts=7, ran=1000)).status) == 7
    assert in_a_row(sick(ended(ALWAYS, restarts=7, ran=1000), healthy_before=True).status) == 0


@pytest.mark.parametrize(
    ("phase", "want", "over", "expected"),
    [
        (RUNNING, RUN, None, None),
        (EXITED, RUN, None, wait_for_clients),
        (EXITED, HALT, None, wait_for_clients),
        (FAILED, RUN, None, wait_for_clients),
        (EXITED, RUN, False, None),
        (EXITED, RUN, True, take_away),
    ],
)
def test_one_that_is_not_to_stay_goes_when_nobody_asks_for_it_any_more(
    phase: int, want: int, over: bool | None, expected: Step | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = desired(phase, started=1, finished=2 * (phase == EXITED), want=want)
    container.spec.restart.kind = policy.RESTART_KIND_REMOVE
    monkeypatch.setattr(removing, "_over", {} if over is None else {"new": over})
    own = state(EXITED if phase == FAILED else phase, started=1, finished=2 * (phase == EXITED))
    own.config.spec.CopyFrom(container.spec)
    assert next_step(container, [own]) is expected
