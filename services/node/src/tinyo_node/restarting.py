"""The steps of restart policies; tinyo_node.policies says what they are about.

How often a container was started again, and when it will be, is written before it waits, so that all goes on after a
restart of the node. The wait itself is timed by a clock that nobody sets.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev

from tinyo_node import graces, lifecycle, policies, reconcile, removing

if TYPE_CHECKING:
    from tinyo_node.cluster import Key
    from tinyo_node.reconcile import Reconciler, Step

#: The waits that this run of the node times, and whether each is over: by the container's id and its next start.
waits: dict[tuple[str, int], bool] = {}


def step(desired: v1.Container, own: rt.ContainerState | None) -> "Step | None":
    """The next step for a container that runs or was stopped, ended or failed; None: it stays as it is."""
    if removing.is_meant(desired):
        return removing.step(desired)
    if desired.desired == v1.DESIRED_STATE_STOPPED:
        return revive if policies.is_forgotten(desired, own) else None
    if desired.status.phase == v1.PHASE_RUNNING and policies.is_sick(desired):
        return end
    if desired.status.phase != v1.PHASE_EXITED or (own and own.phase != v1.PHASE_EXITED):
        return None
    if desired.HasField("restart_of") and desired.restart_of == desired.status.started_at:
        return renew
    if not desired.status.HasField("next_start_at"):
        return plan if policies.is_wanted(desired) else None
    over = waits.get(wait_of(desired))
    return wait if over is None else again if over else None


def kept(status: v1.ContainerStatus) -> dict[str, Any]:
    """What stays of a status when the runtime tells of something new."""
    return {"node_id": status.node_id, "restarts": status.restarts}


def wait_of(container: v1.Container) -> tuple[str, int]:
    """Which wait it is: somebody may stop and start it meanwhile, and it may end again."""
    return container.id, container.status.next_start_at.ToNanoseconds()


async def end(work: "Reconciler", key: "Key") -> None:
    """Ends a process that is unhealthy; what follows is as after any other end."""
    container = work.state.containers[key]
    stopping = ev.Event(reason=ev.EVENT_REASON_STOPPING, message="it is unhealthy, and will be started again")
    await work.state.write([container], stopping)
    await graces.forget(work, container)  # of an earlier process, whose end a node did not live to see
    await lifecycle.end(work, container)


async def plan(work: "Reconciler", key: "Key") -> None:
    """Notes when it is started again."""
    container = work.state.containers[key]
    container.status.restarts = policies.in_a_row(container.status) + 1
    next_start = time.time() + policies.delay(container.status.restarts)
    container.status.next_start_at.FromNanoseconds(int(next_start * 1e9))
    await work.state.write([container])


async def wait(work: "Reconciler", key: "Key") -> None:
    """Has it looked at again in time. Another run of the node may have begun the wait: what is left of it is
    never more than all of it, whatever was done to the machine's clock since."""
    container = work.state.containers[key]
    own = wait_of(container)
    left = min(own[1] / 1e9 - time.time(), policies.delay(container.status.restarts))

    def ring() -> None:
        current = work.state.containers.get(key)
        if current and wait_of(current) == own:
            waits[own] = True
        else:
            waits.pop(own, None)
        work.touch(key)

    waits[own] = False
    asyncio.get_running_loop().call_later(max(0.0, left), ring)


async def again(work: "Reconciler", key: "Key") -> None:
    """Starts it; after a reboot it is made anew."""
    container = work.state.containers[key]
    waits.pop(wait_of(container), None)
    await (lifecycle.start if work.observed.get(container.id) else reconcile.create)(work, key)


async def renew(work: "Reconciler", key: "Key") -> None:
    """The process that was to be followed by another has ended."""
    container = work.state.containers[key]
    container.ClearField("restart_of")
    container.status.phase = v1.PHASE_PENDING
    policies.forget(container.status)
    await work.state.write([container])


async def revive(work: "Reconciler", key: "Key") -> None:
    """Wants it to run, as after each start of the machine."""
    container = work.state.containers[key]
    container.desired = v1.DESIRED_STATE_RUNNING
    container.status.CopyFrom(v1.ContainerStatus(phase=v1.PHASE_PENDING, node_id=container.status.node_id))
    await work.state.write([container])
