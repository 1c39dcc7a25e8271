"""Brings what is towards what is desired, one step at a time, for each container by itself.

The reconciler is level-triggered: whatever happened (an Apply, a change in the runtime, a step, a restart of
either service) only says *look again* for one name. A look compares what is desired with what the runtime has
and takes the next step; there is no other path, and none for "after a crash".
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1

from tinyo_node import changing, events, failures, graces, lifecycle, patience, pulls, renaming, restarting
from tinyo_node.cluster import Key, State, key_of

if TYPE_CHECKING:  # generated for type checkers alone
    from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceAsyncStub

ENDED = (v1.PHASE_EXITED, v1.PHASE_FAILED)


class Reconciler:
    """Follows one runtime and works on what differs."""

    def __init__(self, state: State, runtime: "RuntimeServiceAsyncStub") -> None:
        self.state, self.runtime, state.touch = state, runtime, self.touch
        #: What the runtime has, by id, valid while `connected` is set; None: taken away, and not yet told of.
        self.observed: dict[str, rt.ContainerState | None] = {}
        self.connected = asyncio.Event()
        #: Milliseconds that a container is given to stop, by id, where somebody said so.
        self.grace = graces.written(state.table)
        self.again = set[Key]()
        self._looks: dict[Key, asyncio.Task[None]] = {}

    async def follow(self) -> None:
        """Follows the runtime for ever: list, then watch; and again when the stream ends."""
        while True:
            async with patience.with_runtime(self):
                listing = await self.runtime.List(rt.ListRequest(), wait_for_ready=True)
                renaming.correct(self.state, *listing.containers)
                self.observed = {state.config.id: state for state in listing.containers}
                self.connected.set()
                for key in {*self.state.containers, *(key_of(state.config) for state in listing.containers)}:
                    self.touch(key)
                async for change in self.runtime.Watch(rt.WatchRequest(after_sequence=listing.sequence)):
                    self.observe(change.state, deleted=change.deleted)

    def observe(self, state: rt.ContainerState, *, deleted: bool = False) -> None:
        """Takes note of a state, unless more is known."""
        renaming.correct(self.state, state)
        known = self.observed.get(state.config.id, state)
        if deleted:
            self.observed.pop(state.config.id, None)
        elif known and known.sequence <= state.sequence:
            self.observed[state.config.id] = state
        self.touch(key_of(state.config))

    def touch(self, key: Key) -> None:
        """Look again at this name."""
        self.again.add(key)
        if key not in self._looks:
            self._looks[key] = asyncio.create_task(self._look(key))

    async def _look(self, key: Key) -> None:
        """Step after step, until nothing says any more that there may be another."""
        try:
            while key in self.again:
                self.again.discard(key)
                await self.connected.wait()
                async with patience.with_step(self, key):
                    if step := next_step(self.state.containers.get(key), self.states(key)):
                        await step(self, key)
        finally:
            del self._looks[key]

    def states(self, key: Key) -> list[rt.ContainerState]:
        """What the runtime has under this name."""
        return [state for state in self.observed.values() if state and key_of(state.config) == key]

    async def settled(self, containers: Iterable[v1.Container]) -> None:
        """Returns when nothing is left to do for the names of these, and what came of it is durable."""
        keys = {key_of(container) for container in containers}
        while looks := [look for key, look in self._looks.items() if key in keys]:
            await asyncio.wait(looks)


#: What can be done for a container of this name.
Step = Callable[[Reconciler, Key], Awaitable[None]]


async def remove_stale(work: Reconciler, key: Key) -> None:
    """Takes away what the runtime has under this name and nobody wants any more."""
    desired = work.state.containers.get(key, v1.Container())
    config = next(state.config for state in work.states(key) if state.config.id != desired.id)
    await work.runtime.Stop(rt.StopRequest(ids=[config.id], grace_ms=graces.of(work, config) or 0))
    failures.check(await work.runtime.Delete(rt.DeleteRequest(ids=[config.id])))
    if config.id in work.observed:
        work.observed[config.id] = None
    gone = v1.Container(cluster=config.cluster, id=config.id, spec=config.spec)
    await work.state.write([gone], *events.REMOVED, also=graces.over(work, gone))


async def reflect(work: Reconciler, key: Key) -> None:
    """Takes over what the runtime says; after a reboot it knows nothing."""
    container = work.state.containers[key]
    own = work.observed.get(container.id) or rt.ContainerState(phase=v1.PHASE_PENDING)
    news = [*events.happened(container.status, own)]
    facts = {f.name: value for f, value in own.ListFields() if f.name not in ("config", "sequence")}
    container.status.CopyFrom(v1.ContainerStatus(**facts, **restarting.kept(container.status)))
    await work.state.write([container], *news)


async def pull(work: Reconciler, key: Key) -> None:
    """Makes the image present; its digest is kept, so that a restart never changes the image."""
    container = work.state.containers[key]
    async with failures.of_pull(work, container), pulls.shared(work, container):
        if not container.image_digest:
            async for answer in work.runtime.PullImage(rt.PullImageRequest(reference=container.spec.image)):
                await pulls.progressed(work, container, answer)
                container.image_digest = answer.image.digest
        await work.state.write([container], *events.pulled(container))


async def create(work: Reconciler, key: Key) -> None:
    """Makes and starts the container in one call."""
    container = work.state.containers[key]
    config = rt.ContainerConfig(id=container.id, cluster=container.cluster, spec=container.spec)
    config.image_digest = container.image_digest
    answer = await work.runtime.Create(rt.CreateRequest(containers=[config], start=True))
    if not await failures.of_start(work, container, answer.results[0]):
        work.observe(answer.results[0].state)


def next_step(desired: v1.Container | None, states: Sequence[rt.ContainerState]) -> Step | None:
    """The next step for a name, or None when all is as it should be (or was tried and failed).

    `states` are all containers of that name in the runtime: only one can be the desired one, by its id.
    """
    own = next((state for state in states if desired and state.config.id == desired.id), None)
    if any(state is not own for state in states):
        return remove_stale
    if desired is None:
        return None
    if not reflected(desired.status, own):
        return reflect
    if change := changing.step(desired, own):
        return change
    runs = own is not None and own.phase in (v1.PHASE_RUNNING, v1.PHASE_STOPPING)
    if runs and lifecycle.is_unwanted(desired, own):
        return lifecycle.stop
    if runs or desired.desired == v1.DESIRED_STATE_STOPPED or desired.status.phase in ENDED:
        return restarting.step(desired, own)
    if own is not None:
        return lifecycle.start
    return create if desired.image_digest else pull


def reflected(status: v1.ContainerStatus, own: rt.ContainerState | None) -> bool:
    """Whether the status says what the runtime says."""
    if own is None:
        return status.phase in (v1.PHASE_PENDING, v1.PHASE_PULLING, *ENDED)
    if own.phase == v1.PHASE_CREATED:
        return status.phase in (v1.PHASE_CREATED, *ENDED)
    if own.phase == v1.PHASE_EXITED:  # one that is to be started again has told of its exit before
        return own.finished_at == status.finished_at
    facts = (own.phase, own.started_at, own.paused, own.health)
    return facts == (status.phase, status.started_at, status.paused, status.health)
