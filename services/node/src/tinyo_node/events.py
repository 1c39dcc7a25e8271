"""The node's event log, in the table: numbered from 1, no gaps, never back; shown only when durable."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.health_pb2 import HEALTH_STATE_HEALTHY, HEALTH_STATE_UNHEALTHY

from tinyo_node import revisions
from tinyo_node.errors import TinyoError
from tinyo_node.sqlite import Table

PREFIX = "events/"
#: Events that are read at once.
BATCH = 256
#: Characters of an output that are told.
LINE = 200

#: What is told of a container whose spec was stored: with one node there is no choice of nodes.
ACCEPTED = (ev.Event(reason=ev.EVENT_REASON_APPLIED), ev.Event(reason=ev.EVENT_REASON_SCHEDULED))
STOPPING = (ev.Event(reason=ev.EVENT_REASON_STOPPING),)
REMOVED = (ev.Event(reason=ev.EVENT_REASON_REMOVED),)


def pulled(container: v1.Container) -> Iterator[ev.Event]:
    """Its image is there."""
    yield ev.Event(reason=ev.EVENT_REASON_PULLED, message=container.image_digest)


def happened(before: v1.ContainerStatus, own: rt.ContainerState) -> Iterator[ev.Event]:
    """What must have happened between a status and a state of the runtime."""
    if own.phase == v1.PHASE_PENDING:
        return
    if before.phase in (v1.PHASE_PENDING, v1.PHASE_PULLING) and not before.HasField("started_at"):
        yield ev.Event(reason=ev.EVENT_REASON_CREATED)
    if own.HasField("started_at") and own.started_at != before.started_at:
        without = f", without a user namespace: {own.userns.missing}" if own.userns.missing else ""
        yield ev.Event(reason=ev.EVENT_REASON_RUNNING, message=own.address + without)
    if own.paused != before.paused and own.phase != v1.PHASE_EXITED:
        yield ev.Event(reason=ev.EVENT_REASON_PAUSED if own.paused else ev.EVENT_REASON_UNPAUSED)
    yield from checked(before, own)
    if own.phase == v1.PHASE_EXITED:
        why = ", out of memory" if own.exit.oom_killed else ""
        message = f"code {own.exit.code}{why}"
        yield ev.Event(reason=ev.EVENT_REASON_EXITED, message=message, exit=own.exit)


def checked(before: v1.ContainerStatus, own: rt.ContainerState) -> Iterator[ev.Event]:
    """What checks found that was not told yet of this process."""
    state = own.health.state
    if state == before.health.state and own.started_at == before.started_at:
        return
    if state == HEALTH_STATE_HEALTHY:
        yield ev.Event(reason=ev.EVENT_REASON_HEALTHY)
    elif state == HEALTH_STATE_UNHEALTHY:
        last = own.health.results[-1].output if own.health.results else ""
        first_line = last.partition("\n")[0][:LINE]
        number = f"{own.health.failures} failure{'s' if own.health.failures != 1 else ''}"
        yield ev.Event(
            reason=ev.EVENT_REASON_UNHEALTHY, message=f"{number}: {first_line}" if first_line else number
        )


class EventLog:
    """Gives events their numbers, and shows them to watchers once they are written."""

    #: Events that are kept.
    kept = 10_000

    def __init__(self, table: Table) -> None:
        self._table = table
        self.node_id = own_id(table.path.with_name("id"))
        (last,) = table.reader.execute("SELECT max(key) FROM entries WHERE key GLOB 'events/*'").fetchone()
        #: Number of the last event; it need not be durable yet.
        self.newest = int(last.removeprefix(PREFIX)) if last else 0
        #: Set when something is written or is to be told; then there is another one.
        self.news = asyncio.Event()
        self.revisions = revisions.latest(table)

    def note(
        self, changes: dict[str, bytes | None], container: v1.Container, news: tuple[ev.Event, ...]
    ) -> None:
        """Numbers events about a container, and has them written with the changes that they tell of.

        Changes must be written in the order of the numbers.
        """
        for one in news:
            self.newest += 1
            event = ev.Event(
                node_id=self.node_id,
                sequence=self.newest,
                cluster=container.cluster,
                name=container.spec.name,
                container_id=container.id,
                correlation_id=container.correlation_id,
            )
            event.time.GetCurrentTime()
            event.MergeFrom(one)
            changes[path(self.newest)] = event.SerializeToString()
            if self.newest > self.kept:
                changes[path(self.newest - self.kept)] = None

    def wake(self) -> None:
        """Lets watchers look again."""
        self.news.set()
        self.news = asyncio.Event()

    def read(self, after: int) -> list[ev.Event]:
        """The next durable events after a number, some at a time; 0 means the oldest. EVENTS_GONE when some were
        deleted since; a number that nobody ever got, because it could not be written, is not missed."""
        query = "SELECT value FROM entries WHERE key > ? AND key GLOB 'events/*' ORDER BY key LIMIT ?"
        rows = self._table.reader.execute(query, (path(after), BATCH))
        events = [ev.Event.FromString(value) for (value,) in rows]
        oldest = events[0].sequence if events else max(1, self.newest - self.kept + 1)
        deleted = 0 < after < self.newest - self.kept and oldest != after + 1
        if after > self.newest or deleted:
            message = (
                f"events after {after} cannot be had: kept are {oldest} to {self.newest}; list, then watch"
            )
            raise TinyoError(grpc.StatusCode.OUT_OF_RANGE, "EVENTS_GONE", message, {"oldest": str(oldest)})
        return events

    async def watch(self, after: int) -> AsyncGenerator[list[ev.Event], None]:
        """Events after a number as they become durable, without end; no events at all when somebody woke us."""
        while True:
            news = self.news
            events = self.read(after)
            yield events
            if events:
                after = events[-1].sequence
            else:
                await news.wait()


def path(sequence: int) -> str:
    """Key of an event in the table; keys sort as numbers do."""
    return f"{PREFIX}{sequence:020}"


def own_id(file: Path) -> str:
    """The node's id, made once."""
    if not file.exists():
        file.write_text(os.urandom(8).hex())
    return file.read_text()
