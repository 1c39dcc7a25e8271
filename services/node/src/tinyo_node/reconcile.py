"""Brings what is towards what is desired, one step at a time, for each container by itself.

The reconciler is level-triggered: whatever happened (an Apply, a change in the runtime, a restart of either
service) only says *look again* for one name. `next_step` compares what is desired with what the runtime has
and names the next step; there is no other path, and none for "after a crash".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.error_pb2 import Error
from tinyo.v1.image_pb2 import PullProgress

from tinyo_node.cluster import Key, State
from tinyo_node.errors import from_runtime

if TYPE_CHECKING:  # generated for type checkers alone
    from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceAsyncStub

log = logging.getLogger(__name__)

#: Containers that are worked on at the same time.
CONCURRENT = 32
DEFAULT_GRACE_MS = 10_000
ENDED = (v1.PHASE_EXITED, v1.PHASE_FAILED)


class Step(Enum):
    """What can be done next for a container."""

    REMOVE_STALE = auto()
    REFLECT = auto()
    PULL = auto()
    CREATE = auto()
    START = auto()
    STOP = auto()


def next_step(desired: v1.Container | None, states: Iterable[rt.ContainerState]) -> Step | None:
    """The next step for a name, or None when all is as it should be (or was tried and failed).

    `states` are all containers of that name in the runtime: only one can be the desired one, by its id.
    """
    own = None
    for state in states:
        if desired is None or state.config.id != desired.id:
            return Step.REMOVE_STALE
        own = state
    if desired is None:
        return None
    if not reflected(desired.status, own):
        return Step.REFLECT
    runs = own is not None and own.phase in (v1.PHASE_RUNNING, v1.PHASE_STOPPING)
    if desired.desired == v1.DESIRED_STATE_STOPPED:
        return Step.STOP if runs else None
    if runs or desired.status.phase in ENDED:
        return None  # a restart policy would look at an exit here
    if own is not None:
        return Step.START
    return Step.CREATE if desired.image_digest else Step.PULL


def reflected(status: v1.ContainerStatus, own: rt.ContainerState | None) -> bool:
    """Whether the status says what the runtime says."""
    if own is None:
        return status.phase in (v1.PHASE_PENDING, v1.PHASE_PULLING, *ENDED)
    if own.phase == v1.PHASE_CREATED:
        return status.phase in (v1.PHASE_CREATED, *ENDED)
    if own.phase == v1.PHASE_EXITED:  # one that is to be started again has told of its exit before
        return own.finished_at == status.finished_at
    return (own.phase, own.started_at) == (status.phase, status.started_at)


@dataclass
class Pulls:
    """One pull for all who want the same image at the same time, and who listens to its progress."""

    runtime: "RuntimeServiceAsyncStub"
    on_progress: Callable[[str, PullProgress], None]

    def __post_init__(self) -> None:
        self._running: dict[str, asyncio.Task[str]] = {}
        #: Set when something really has to be fetched.
        self._fetching: dict[str, asyncio.Event] = {}

    def digest(self, reference: str) -> "asyncio.Task[str]":
        """Makes the image present; the digest of its manifest. Whoever waits for it shields it."""
        if reference not in self._running:
            self._fetching[reference] = asyncio.Event()
            task = self._running[reference] = asyncio.create_task(self._pull(reference))
            task.add_done_callback(lambda _: self._running.pop(reference))
        return self._running[reference]

    async def fetches(self, reference: str) -> bool:
        """Whether the image comes from a registry; known as soon as it begins to come, or is there."""
        began = asyncio.create_task(self._fetching[reference].wait())
        await asyncio.wait([began, self.digest(reference)], return_when=asyncio.FIRST_COMPLETED)
        began.cancel()
        return self._fetching[reference].is_set()

    async def _pull(self, reference: str) -> str:
        digest = ""
        async for answer in self.runtime.PullImage(rt.PullImageRequest(reference=reference)):
            if answer.HasField("progress"):
                if not all(layer.complete for layer in answer.progress.layers):
                    self._fetching[reference].set()
                self.on_progress(reference, answer.progress)
            else:
                digest = answer.image.digest
        return digest


class Reconciler:
    """Follows one runtime and works on what differs."""

    def __init__(self, state: State, runtime: "RuntimeServiceAsyncStub") -> None:
        self.state = state
        self.runtime = runtime
        self.pulls = Pulls(runtime, state.progressed)
        #: What the runtime has, by id; valid while `connected` is set.
        self.observed: dict[str, rt.ContainerState] = {}
        self.connected = asyncio.Event()
        #: Milliseconds that a removed container is given to stop, by id.
        self.grace: dict[str, int] = {}
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._news = asyncio.Event()
        self._streams = 0

    async def run(self) -> None:
        """Follows the runtime for ever: list, then watch; and again when the stream ends."""
        while True:
            try:
                listing = await self.runtime.List(rt.ListRequest(), wait_for_ready=True)
                self.observed = {found.config.id: found for found in listing.containers}
                self.connected.set()
                self._heard(new_stream=True)
                for key in {*self.state.containers, *map(key_of, self.observed.values())}:
                    self.touch(key)
                async for change in self.runtime.Watch(rt.WatchRequest(after_sequence=listing.sequence)):
                    if change.deleted:
                        self.observed.pop(change.state.config.id, None)
                    else:
                        self.observed[change.state.config.id] = change.state
                    self._heard()
                    self.touch(key_of(change.state))
            except grpc.aio.AioRpcError as error:
                log.warning("the runtime's stream ended: %s %s", error.code().name, error.details())
            self.connected.clear()
            await asyncio.sleep(0.05)

    async def has(self, id: str) -> bool:
        """Whether the runtime has this container."""
        await self.connected.wait()
        return id in self.observed

    def _heard(self, *, new_stream: bool = False) -> None:
        self._streams += new_stream
        self._news.set()
        self._news = asyncio.Event()

    async def _until(self, seen: Callable[[], bool]) -> None:
        """Waits until the stream has told what a call answered: it alone says what is, in order."""
        stream = self._streams
        while not seen() and stream == self._streams:
            await self._news.wait()

    def touch(self, key: Key) -> None:
        """Look again at this name."""
        self._again.add(key)
        if key not in self._busy:
            self._busy[key] = asyncio.create_task(self._settle(key))

    async def _settle(self, key: Key) -> None:
        """Step after step until there is none; errors of transport wait for the runtime to come back."""
        delay = 0.05
        try:
            while key in self._again:
                self._again.discard(key)
                try:
                    await self._steps(key)
                except (grpc.aio.AioRpcError, OSError) as error:
                    log.warning("%s/%s: %s; trying again", *key, error)
                    self._again.add(key)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, 5)
        finally:
            del self._busy[key]

    async def _steps(self, key: Key) -> None:
        await self.connected.wait()
        async with self._slots:
            while step := next_step(self.state.containers.get(key), self._states(key)):
                await STEPS[step](self, key)

    def _states(self, key: Key) -> list[rt.ContainerState]:
        return [state for state in self.observed.values() if key_of(state) == key]

    async def _remove_stale(self, key: Key) -> None:
        desired = self.state.containers.get(key)
        stale = [state for state in self._states(key) if desired is None or state.config.id != desired.id]
        for state in stale:
            id = state.config.id
            grace = self.grace.pop(id, DEFAULT_GRACE_MS)
            await self.runtime.Stop(rt.StopRequest(ids=[id], grace_ms=grace))
            result = (await self.runtime.Delete(rt.DeleteRequest(ids=[id]))).results[0]
            if result.HasField("error"):
                raise OSError(0, f"{id} cannot be deleted: {result.error.message}")
            await self._until(lambda id=id: id not in self.observed)  # type: ignore[misc]
            await self.state.removed(key, id)

    async def _reflect(self, key: Key) -> None:
        container = self.state.containers[key]
        own = self.observed.get(container.id)
        status = container.status
        if own is None:
            status.phase, status.pid, status.address = v1.PHASE_PENDING, 0, ""
            return await self.state.save(container)
        news = happened(status, own)
        status.phase, status.pid, status.address = own.phase, own.pid, own.address
        for field in ("started_at", "finished_at", "exit"):
            status.ClearField(field)
            if own.HasField(field):
                getattr(status, field).CopyFrom(getattr(own, field))
        status.ClearField("error")
        return await self.state.save(container, *news)

    async def _pull(self, key: Key) -> None:
        container = self.state.containers[key]
        image = container.spec.image
        pull = self.pulls.digest(image)
        if await self.pulls.fetches(image):
            container.status.phase = v1.PHASE_PULLING
            await self.state.save(container, ev.Event(reason=ev.EVENT_REASON_PULLING, message=image))
        try:
            digest = await asyncio.shield(pull)
        except grpc.aio.AioRpcError as error:
            if is_transport(error):
                raise
            return await self._failed(container, from_runtime(error), "image")
        container.image_digest = digest
        return await self.state.save(container, ev.Event(reason=ev.EVENT_REASON_PULLED, message=digest))

    async def _create(self, key: Key) -> None:
        container = self.state.containers[key]
        config = rt.ContainerConfig(
            id=container.id,
            cluster=container.cluster,
            image_digest=container.image_digest,
            spec=container.spec,
        )
        answer = await self.runtime.Create(rt.CreateRequest(containers=[config], start=True))
        result = answer.results[0]
        if result.error.reason == "IMAGE_NOT_FOUND":  # it was removed since: fetch the very same again
            await self._pull_again(container)
        else:
            await self._took(container, result)

    async def _pull_again(self, container: v1.Container) -> None:
        repository = container.spec.image.partition("@")[0]
        if ":" in repository.rpartition("/")[2]:
            repository = repository.rpartition(":")[0]
        try:
            await asyncio.shield(self.pulls.digest(f"{repository}@{container.image_digest}"))
        except grpc.aio.AioRpcError as error:
            if is_transport(error):
                raise
            await self._failed(container, from_runtime(error), "image")

    async def _start(self, key: Key) -> None:
        container = self.state.containers[key]
        answer = await self.runtime.Start(rt.StartRequest(ids=[container.id]))
        await self._took(container, answer.results[0])

    async def _took(self, container: v1.Container, result: rt.ContainerResult) -> None:
        """What came of an attempt to start."""
        await self._seen(result)
        if result.HasField("error"):
            await self._failed(container, result.error)

    async def _seen(self, result: rt.ContainerResult) -> None:
        """Waits until the stream has told at least what this result says."""
        if result.HasField("state"):
            await self._until(lambda: self._sequence(result.id) >= result.state.sequence)

    def _sequence(self, id: str) -> int:
        return self.observed[id].sequence if id in self.observed else 0

    async def _failed(self, container: v1.Container, error: Error, field: str = "") -> None:
        container.status.phase = v1.PHASE_FAILED
        error.field = error.field or field
        container.status.error.CopyFrom(error)
        await self.state.save(
            container, ev.Event(reason=ev.EVENT_REASON_FAILED, message=error.message, error=error)
        )

    async def _stop(self, key: Key) -> None:
        container = self.state.containers[key]
        await self.state.save(container, ev.Event(reason=ev.EVENT_REASON_STOPPING))
        grace = self.grace.pop(container.id, DEFAULT_GRACE_MS)
        answer = await self.runtime.Stop(rt.StopRequest(ids=[container.id], grace_ms=grace))
        await self._seen(answer.results[0])


STEPS: dict[Step, Callable[[Reconciler, Key], Awaitable[None]]] = {
    Step.REMOVE_STALE: Reconciler._remove_stale,
    Step.REFLECT: Reconciler._reflect,
    Step.PULL: Reconciler._pull,
    Step.CREATE: Reconciler._create,
    Step.START: Reconciler._start,
    Step.STOP: Reconciler._stop,
}


def happened(before: v1.ContainerStatus, own: rt.ContainerState) -> list[ev.Event]:
    """What must have happened between a status and a state of the runtime."""
    news = []
    if before.phase in (v1.PHASE_PENDING, v1.PHASE_PULLING) and not before.HasField("started_at"):
        news.append(ev.Event(reason=ev.EVENT_REASON_CREATED))
    if own.HasField("started_at") and own.started_at != before.started_at:
        news.append(ev.Event(reason=ev.EVENT_REASON_RUNNING, message=own.address))
    if own.phase == v1.PHASE_EXITED:
        news.append(ev.Event(reason=ev.EVENT_REASON_EXITED, message=f"code {own.exit.code}", exit=own.exit))
    return news


def is_transport(error: grpc.aio.AioRpcError) -> bool:
    """Whether the runtime was not reached (as opposed to: it answered that the registry was not)."""
    return error.code() == grpc.StatusCode.UNAVAILABLE and from_runtime(error).reason == "START_FAILED"


def key_of(state: rt.ContainerState) -> Key:
    """Cluster and name of a container of the runtime."""
    return state.config.cluster, state.config.spec.name
